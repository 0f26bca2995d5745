"""Who computes how many tokens in the next step. Pure: no clock, no tensors, no threads.

Every step takes all sequences that are generating, and gives what is left of the step's
tokens to prompts, which are computed in chunks. A sequence is admitted when the cache has
room for its whole prompt; if room runs out later, the one that ranks last is set back: it
loses its blocks, waits again, and goes on later with the tokens that it had.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from fastchat.engine.batching.blocks import Block, BlockPool, Tokens
from fastchat.engine.batching.sequence import Sequence
from fastchat.errors import OverloadedError

_RANK = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a step and the queue.

    Attributes:
        running: sequences at once.
        waiting: sequences in line at most.
        step_tokens: tokens computed in a step at most; bounds how long a long prompt makes
            the others wait for their next token.
        draft_rows: sequences that generate at once at most, for drafts to be checked.
        draft_tokens: drafts for one sequence in one step at most; 0 is none.
        logit_rows: tokens of one prompt in a step, where each one's logits are wanted.
    """

    running: int = 64
    waiting: int = 512
    step_tokens: int = 512
    draft_rows: int = 8
    draft_tokens: int = 6
    logit_rows: int = 64


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence does in a step.

    Attributes:
        count: known tokens to compute.
        drafts: guesses to check behind them.
        samples: whether the sequence's next token comes out of this step.
        all_logits: whether the logits of every token are wanted.
    """

    sequence: Sequence
    count: int
    drafts: Tokens = ()
    samples: bool = False
    all_logits: bool = False


def _work(sequence: Sequence, count: int, drafts: Tokens = ()) -> Work:
    return Work(
        sequence,
        count,
        drafts,
        samples=count == sequence.pending and not sequence.embeds,
        all_logits=_wants_all_logits(sequence),
    )


def _wants_all_logits(sequence: Sequence) -> bool:
    return sequence.generated == 0 and sequence.request.sampling.prompt_logprobs is not None


class Scheduler:
    """Decides over one pool of blocks.

    Attributes:
        running: sequences that hold blocks, in order of admission.
        preemptions: times that one was set back.
        prefix_tokens, prefix_hit_tokens: of admitted prompts, and those found in the cache.
        suspects: sequences that were part of a step which failed; each is then computed
            alone until its next token, so that only the one at fault fails again.
    """

    def __init__(self, pool: BlockPool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.prefix_tokens = self.prefix_hit_tokens = 0
        self.suspects: list[Sequence] = []
        self._waiting: list[Sequence] = []

    @property
    def waiting(self) -> int:
        """Sequences in line."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence in line.

        Raises:
            OverloadedError: the line is full.
        """
        if len(self._waiting) >= self.limits.waiting:
            raise OverloadedError(
                f"{len(self._waiting)} requests wait already, which is the limit.",
                hint="Try again later.",
            )
        insort(self._waiting, sequence, key=_RANK)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is, and frees its blocks."""
        for line in (self.running, self._waiting, self.suspects):
            if sequence in line:
                line.remove(sequence)
        self._release(sequence)

    def overdue(self, now: float) -> list[Sequence]:
        """Those in line, not yet begun, whose deadline has passed."""
        return [
            sequence
            for sequence in self._waiting
            if sequence.deadline is not None and sequence.deadline <= now and not sequence.generated
        ]

    def plan(self) -> list[Work]:
        """The work of the next step; empty if there is none.

        Sequences that generate come first, then prompts in order of admission.
        """
        if self.suspects:
            return self._plan_alone(self.suspects[0])
        works: list[Work] = []
        left = self.limits.step_tokens
        preempted = self.preemptions
        generating = [sequence for sequence in self.running if sequence.pending == 1]
        drafted = len(generating) <= self.limits.draft_rows
        for sequence in generating:
            if sequence not in self.running:
                continue
            drafts = self._drafts(sequence) if drafted else ()
            if self._reserve(sequence, 1 + len(drafts)):
                works.append(_work(sequence, 1, drafts))
                left -= 1 + len(drafts)
        for sequence in [s for s in self.running if s.pending > 1]:
            if sequence in self.running:
                left -= self._plan_prompt(sequence, left, works)
        if self.preemptions > preempted:
            return [work for work in works if work.sequence in self.running]
        admitted = self._admitted()
        while left > 0 and (new := next(admitted, None)) is not None:
            left -= self._plan_prompt(new, left, works)
        return works

    def computed(self, work: Work, accepted: int) -> None:
        """Books a step's work: what is in the cache now, and which blocks others can find.

        Args:
            accepted: drafts that were right.
        """
        sequence, size = work.sequence, self.pool.block_size
        sequence.computed += work.count + accepted
        if sequence.namespace is None:
            return
        while (stop := (sequence.published + 1) * size) <= sequence.computed:
            place = sequence.published
            parent = sequence.blocks[place - 1] if place else self.pool.root(sequence.namespace)
            tokens = tuple(sequence.tokens[place * size : stop])
            own = sequence.blocks[place]
            sequence.set_block(place, self.pool.publish(own, parent, tokens))
            sequence.published += 1

    def suspect(self, works: list[Work]) -> None:
        """Takes note that a step failed: its sequences start anew, one at a time.

        What a failed step wrote of a sequence may be half of it, so none goes on from there.
        """
        for work in works:
            self._set_back(work.sequence)
        self.suspects = [work.sequence for work in works]

    def clear_of_suspicion(self, sequence: Sequence) -> None:
        """Takes note that a sequence came to its next token."""
        if sequence in self.suspects:
            self.suspects.remove(sequence)

    def _plan_alone(self, sequence: Sequence) -> list[Work]:
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            self.running.append(sequence)
        works: list[Work] = []
        self._plan_prompt(sequence, self.limits.step_tokens, works)
        return works

    def _plan_prompt(self, sequence: Sequence, left: int, works: list[Work]) -> int:
        """Plans a chunk; returns its tokens."""
        count = min(sequence.pending, left)
        if _wants_all_logits(sequence):
            count = min(count, self.limits.logit_rows)
        if count == 0 or not self._reserve(sequence, count):
            return 0
        works.append(_work(sequence, count))
        return count

    def _admitted(self) -> Iterator[Sequence]:
        """Takes sequences from the line, as long as there is room."""
        if not self._waiting:
            return
        computing = {self._next_block(sequence) for sequence in self.running}
        for sequence in list(self._waiting):
            if len(self.running) >= self.limits.running:
                return
            found = self._found(sequence)
            ahead = self._block_behind(sequence, found)
            if ahead is not None and ahead in computing:
                continue  # another computes the same beginning now: it will be found
            idle = sum(block.holders == 0 for block in found)
            needed = self._blocks_for(len(sequence.tokens) + 1) - len(found)
            if needed + idle > self.pool.available:
                return  # in order: no smaller one slips past
            self._waiting.remove(sequence)
            self.pool.hold(found)
            sequence.add_blocks(found)
            sequence.published = len(found)
            sequence.computed = len(found) * self.pool.block_size
            if sequence.found is None:
                sequence.found = sequence.computed
            self.running.append(sequence)
            self.prefix_tokens += len(sequence.tokens)
            self.prefix_hit_tokens += sequence.computed
            computing.add(self._next_block(sequence))
            yield sequence

    def _found(self, sequence: Sequence) -> list[Block]:
        """The computed blocks that a sequence can begin with; at least one token stays."""
        if sequence.namespace is None:
            return []
        return self.pool.find(sequence.namespace, sequence.tokens[:-1])

    def _next_block(self, sequence: Sequence) -> Hashable | None:
        """The block that a prompt computes next; None while an answer is being generated."""
        if sequence.pending == 1:
            return None
        done = sequence.computed // self.pool.block_size
        return self._block_behind(sequence, sequence.blocks[:done])

    def _block_behind(self, sequence: Sequence, done: list[Block]) -> Hashable | None:
        """What tells a full block of a prompt from all others: where it hangs, and its tokens."""
        start = len(done) * self.pool.block_size
        stop = start + self.pool.block_size
        if sequence.namespace is None or stop >= len(sequence.tokens):
            return None
        parent: Hashable = done[-1].number if done else ("root", sequence.namespace)
        return parent, tuple(sequence.tokens[start:stop])

    def _drafts(self, sequence: Sequence) -> Tokens:
        if sequence.lookup is None or not self.limits.draft_tokens:
            return ()
        # The last token of the budget needs no check of what follows it.
        room = sequence.budget - sequence.generated - 1
        limit = min(self.limits.draft_tokens, room)
        drafts: Tokens = sequence.lookup.draft(limit) if limit > 0 else ()
        return drafts

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.pool.block_size)

    def _reserve(self, sequence: Sequence, count: int) -> bool:
        """Makes room for more tokens of a sequence, at the cost of those that rank behind it.

        Returns:
            False if the sequence itself had to be set back.
        """
        needed = self._blocks_for(sequence.computed + count) - len(sequence.blocks)
        while needed > self.pool.available:
            last = max(self.running, key=_RANK)
            self._set_back(last)
            self.preemptions += 1
            if last is sequence:
                return False
        sequence.add_blocks([self.pool.take() for _ in range(needed)])
        return True

    def _set_back(self, sequence: Sequence) -> None:
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            insort(self._waiting, sequence, key=_RANK)

    def _release(self, sequence: Sequence) -> None:
        self.pool.give_up(sequence.blocks)
        sequence.clear()
