"""The engine's step: plan, compute, sample, tell. One thread calls it, again and again.

Knows nothing of threads or of asyncio; time is given to it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastchat.constants import ErrorCode
from fastchat.engine.answer import Answer, Vocabulary
from fastchat.engine.base import EngineStats, GenerationEvent, TokenLogprob
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.scheduler import Limits, Scheduler, Work
from fastchat.engine.batching.sequence import Sequence
from fastchat.engine.batching.step import Layout, lay_out
from fastchat.engine.network.yuan import Network
from fastchat.engine.sampling import BatchSampler, Row, Sampled, token_logprobs
from fastchat.errors import DeadlineError, FastChatError, GenerationError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step brought for one sequence: one of the three.

    Attributes:
        events: the last one has a finish reason if the answer is complete.
        embedding: (H,) unit vector.
        error: why it ended without one.
    """

    sequence: Sequence
    events: list[GenerationEvent]
    embedding: list[float] | None = None
    error: FastChatError | None = None

    @property
    def final(self) -> bool:
        """Whether nothing more comes for this sequence."""
        ended = bool(self.events) and self.events[-1].finish_reason is not None
        return ended or self.embedding is not None or self.error is not None


class EngineCore:
    """All sequences over one network and its cache.

    Args:
        network: computes.
        pool: the blocks of its cache.
        sampler: picks tokens.
        vocabulary: of the model.
        limits: of steps and of the queue.
    """

    def __init__(
        self,
        network: Network,
        pool: BlockPool,
        sampler: BatchSampler,
        vocabulary: Vocabulary,
        limits: Limits,
    ) -> None:
        self.scheduler = Scheduler(pool, limits)
        self.network = network
        self._pool = pool
        self.sampler = sampler
        self._vocabulary = vocabulary
        self._counts = {
            "prompt_tokens": 0,
            "generated_tokens": 0,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        }

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def stats(self) -> EngineStats:
        """Load and counts."""
        scheduler = self.scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=scheduler.waiting,
            cache_usage=self._pool.held / self._pool.count,
            prefix_tokens=scheduler.prefix_tokens,
            prefix_hit_tokens=scheduler.prefix_hit_tokens,
            preemptions=scheduler.preemptions,
            **self._counts,
        )

    def close(self) -> None:
        """Ends the threads that help."""
        self.sampler.close()

    def step(self, now: float) -> list[Outcome]:
        """One forward pass, and what came of it.

        Args:
            now: on the clock of the sequences' deadlines, in seconds.
        """
        overdue = self.scheduler.overdue(now)
        outcomes = [self._end(sequence, _too_late(sequence)) for sequence in overdue]
        works = self.scheduler.plan()
        for work in works:
            if work.sequence.begun is None:
                work.sequence.begun = now
        if works:
            try:
                outcomes += self._run(works)
            except Exception as error:  # noqa: BLE001  (ends the sequence at fault, with its cause)
                outcomes += self._failed(works, error)
        return outcomes

    def _run(self, works: list[Work]) -> list[Outcome]:
        layout = lay_out(works, self._pool.block_size, scratch=self._pool.count)
        rows = [row for work in works for row in _rows(work)]
        self.sampler.prefetch(rows)
        states, embedded = self._forward(works, layout)
        outcomes = [self._add_up(*pair) for pair in embedded]
        logits = self.network.logits(states) if len(states) else None
        told = [self._tell_prompt(work, logits, part) for work, part in _with(works, layout.logits)]
        results = iter(self._sample(works, layout, logits, rows))
        for work, prompt, scratch in zip(works, told, layout.scratch, strict=True):
            if work.samples:
                sampled = [next(results) for _ in range(1 + len(work.drafts))]
                outcomes.append(self._take(work, sampled, prompt, scratch))
            elif not work.sequence.embeds:
                self.scheduler.computed(work, 0)
        return [outcome for outcome in outcomes if outcome.events or outcome.final]

    def _forward(
        self, works: list[Work], layout: Layout
    ) -> tuple[Tensor, list[tuple[Work, Tensor]]]:
        """States (Q, H) of the rows that need logits, and all states of those to embed."""
        step = layout.step.to(self.network.ops.device)
        with torch.inference_mode():
            if not any(work.sequence.embeds for work in works):
                return self.network.forward(step, step.logit_rows), []
            states = self.network.forward(step)
            parts = torch.split(states, list(step.sizes))
            embedded = [(w, part) for w, part in _with(works, parts) if w.sequence.embeds]
            return states[step.logit_rows], embedded

    def _sample(
        self, works: list[Work], layout: Layout, logits: Tensor | None, rows: list[Row]
    ) -> Many[Sampled]:
        if logits is None or not rows:
            return []
        if len(rows) < len(logits):
            wanted = [
                torch.arange(part.stop - 1 - len(work.drafts), part.stop)
                for work, part in _with(works, layout.logits)
                if work.samples
            ]
            logits = logits[torch.cat(wanted).to(logits.device)]
        return self.sampler.sample(logits, rows)

    def _tell_prompt(
        self, work: Work, logits: Tensor | None, part: slice
    ) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the prompt, once all of them are there."""
        if not work.all_logits or logits is None:
            return ()
        sequence = work.sequence
        params, first = sequence.request.sampling, sequence.computed
        assert params.prompt_logprobs is not None
        following = sequence.tokens[first + 1 : first + 1 + work.count]
        found = token_logprobs(logits[part][: len(following)], following, params.prompt_logprobs)
        told = sequence.prompt_told
        if not told:
            told.append(self._vocabulary.logprob(sequence.tokens[0], None))
        for token, (logprob, top) in zip(following, found, strict=True):
            told.append(self._vocabulary.logprob(token, logprob, top))
        return tuple(told) if work.samples else ()

    def _take(
        self,
        work: Work,
        results: list[Sampled],
        prompt_logprobs: tuple[TokenLogprob, ...],
        scratch: int,
    ) -> Outcome:
        """Takes over the tokens that stand: the first, and those behind drafts that were right."""
        sequence, accepted = work.sequence, 0
        answer: Answer = sequence.answer
        events: list[GenerationEvent] = []
        if not sequence.generated:
            begun = sequence.arrived if sequence.begun is None else sequence.begun
            answer.begin(
                cached_tokens=sequence.found or 0, queued_s=max(0.0, begun - sequence.arrived)
            )
        for place, sampled in enumerate(results):
            if sampled.error is not None:
                return self._end(sequence, sampled.error, events)
            events.append(self._accept(sequence, answer, sampled, prompt_logprobs))
            prompt_logprobs = ()
            if events[-1].finish_reason is not None:
                break
            if place == len(work.drafts) or work.drafts[place] != sampled.token:
                break
            accepted += 1
        self._book(work, accepted, len(events))
        if events[-1].finish_reason is None and work.drafts:
            self._keep_state(work, accepted, scratch)
        self.scheduler.computed(work, accepted)
        self.scheduler.clear_of_suspicion(sequence)
        if events[-1].finish_reason is not None:
            self.scheduler.remove(sequence)
        return Outcome(sequence, events)

    def _accept(
        self,
        sequence: Sequence,
        answer: Answer,
        sampled: Sampled,
        prompt_logprobs: tuple[TokenLogprob, ...],
    ) -> GenerationEvent:
        state = sequence.sampling
        state.accept(sampled.token)
        sequence.tokens.append(sampled.token)
        return answer.push(
            sampled.token,
            complete=state.complete,
            logprobs=self._vocabulary.logprobs(sampled),
            prompt_logprobs=prompt_logprobs,
        )

    def _book(self, work: Work, accepted: int, generated: int) -> None:
        sequence = work.sequence
        if sequence.lookup is not None:
            sequence.lookup.record(len(work.drafts), accepted, sequence.tokens[-generated:])
        if sequence.generated == generated:
            self._counts["prompt_tokens"] += sequence.prompt_size
        self._counts["generated_tokens"] += generated
        self._counts["drafted_tokens"] += len(work.drafts)
        self._counts["accepted_tokens"] += accepted

    def _keep_state(self, work: Work, accepted: int, scratch: int) -> None:
        """Keeps the filter's state behind the last token that stands."""
        sequence = work.sequence
        last = sequence.computed + work.count + accepted - 1
        place = int(sequence.table[last // self._pool.block_size])
        with torch.inference_mode():
            self.network.move_states(torch.tensor([scratch + accepted]), torch.tensor([place]))

    def _add_up(self, work: Work, states: Tensor) -> Outcome:
        """Adds a chunk's states to those before; at the end the mean of all, at length 1."""
        sequence = work.sequence
        total = states.float().sum(dim=0)
        sequence.total = total if sequence.computed == 0 else sequence.total + total
        self.scheduler.computed(work, 0)
        if sequence.pending:
            return Outcome(sequence, [])
        self.scheduler.clear_of_suspicion(sequence)
        self.scheduler.remove(sequence)
        mean = sequence.total / len(sequence.tokens)
        unit: list[float] = torch.nn.functional.normalize(mean, dim=0).tolist()
        return Outcome(sequence, [], embedding=unit)

    def _end(
        self, sequence: Sequence, error: FastChatError, events: list[GenerationEvent] | None = None
    ) -> Outcome:
        self.scheduler.remove(sequence)
        return Outcome(sequence, events or [], error=error)

    def _failed(self, works: list[Work], error: Exception) -> list[Outcome]:
        """A step that failed with one sequence ends it; with several, each is tried alone."""
        if len(works) > 1:
            logger.warning("a step of %d requests failed: %s", len(works), error)
            self.scheduler.suspect(works)
            return []
        logger.error("a request failed", exc_info=error)
        return [self._end(works[0].sequence, _as_error(error))]


def _rows(work: Work) -> list[Row]:
    if not work.samples:
        return []
    state: Any = work.sequence.sampling
    return [Row(state, work.drafts[:count]) for count in range(1 + len(work.drafts))]


def _with(works: list[Work], parts: Any) -> Any:
    return zip(works, parts, strict=True)


def _too_late(sequence: Sequence) -> FastChatError:
    return DeadlineError(
        f"The request waited for {sequence.request.deadline_s:g} s, which is its limit, without"
        " being begun.",
        hint="Try again later, or give it more time.",
    )


def _as_error(error: Exception) -> FastChatError:
    if isinstance(error, FastChatError):
        return error
    found = GenerationError(f"{type(error).__name__}: {error}")
    if isinstance(error, torch.OutOfMemoryError):
        found = GenerationError(f"The device ran out of memory: {error}")
        found.code = ErrorCode.CUDA_OUT_OF_MEMORY
    found.__cause__ = error
    return found
