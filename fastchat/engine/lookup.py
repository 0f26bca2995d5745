"""Guesses the next tokens from the text so far: what followed the last tokens before.

Pure. Guesses cost a little where they are wrong, so a sequence is left alone while its
guesses do not come true.
"""

from __future__ import annotations

from collections.abc import Sequence

_FEW = 2
_SHORT_PAUSE = 8


class PromptLookup:
    """Finds where the last tokens of a sequence stood before.

    A token costs the same however long the sequence is.

    Args:
        ids: the sequence so far.
        min_ngram: tokens that have to agree, at least.
        max_ngram: tokens that are compared at most; longer agreement goes first.
    """

    def __init__(self, ids: Sequence[int], min_ngram: int = 2, max_ngram: int = 4) -> None:
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(f"1 <= min_ngram <= max_ngram is needed: {min_ngram}, {max_ngram}")
        self._sizes = range(max_ngram, min_ngram - 1, -1)
        self._ids: list[int] = []
        # Where what follows each run starts. A run is entered once something follows it, so
        # that the end of the sequence does not find itself.
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(ids)

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes tokens that joined the sequence."""
        for token in tokens:
            end = len(self._ids)
            for size in self._sizes:
                if size <= end:
                    self._after[tuple(self._ids[end - size :])] = end
            self._ids.append(token)

    def draft(self, limit: int) -> tuple[int, ...]:
        """What may come next: at most `limit` tokens, none if nothing is known.

        A guess that reaches the end of the sequence goes on with itself: what repeats now is
        taken to go on repeating.
        """
        end = len(self._ids)
        for size in self._sizes:
            if size > end:
                continue
            start = self._after.get(tuple(self._ids[end - size :]))
            if start is not None:
                period = end - start
                return tuple(self._ids[start + index % period] for index in range(limit))
        return ()


class DraftControl:
    """Says how many tokens to guess, from how guesses fared lately.

    Few at first; twice as many where all came true; and a pause, longer each time, where too
    few do.

    Args:
        most: guesses at a time, at most.
        worth: share of guesses that have to come true, lest guessing pauses.
        memory: how much of the past share stays at each new guess.
        longest_pause: tokens between two tries where nothing ever comes true.
    """

    def __init__(
        self,
        most: int = 8,
        worth: float = 0.3,
        memory: float = 0.7,
        longest_pause: int = 256,
    ) -> None:
        self._most = most
        self._worth = worth
        self._memory = memory
        self._longest_pause = longest_pause
        self._size = min(_FEW, most)
        self._share = 0.5
        self._pause = _SHORT_PAUSE
        self._left = 0

    def limit(self) -> int:
        """Tokens to guess now; 0 while it does not pay."""
        return 0 if self._left > 0 else self._size

    def record(self, drafted: int, accepted: int, generated: int) -> None:
        """Takes what became of a step.

        Args:
            drafted: tokens that were guessed.
            accepted: those that came true.
            generated: tokens that joined the sequence.
        """
        self._left = max(self._left - generated, 0)
        if not drafted:
            return
        grown = 2 * drafted if accepted == drafted else accepted + 1
        self._size = min(max(grown, _FEW), self._most)
        self._share = self._memory * self._share + (1 - self._memory) * accepted / drafted
        if self._share >= self._worth:
            self._pause = _SHORT_PAUSE
        else:
            self._left = self._pause
            self._pause = min(2 * self._pause, self._longest_pause)
            self._share = self._worth  # the next try alone decides


class Drafter:
    """Drafts for one sequence, while that pays.

    Args:
        ids: the prompt.
        control: says when and how much.
    """

    def __init__(self, ids: Sequence[int], control: DraftControl | None = None) -> None:
        self._ids = list(ids)
        self._lookup: PromptLookup | None = None
        self._control = DraftControl() if control is None else control

    def draft(self, limit: int) -> tuple[int, ...]:
        """Tokens that may come next, at most `limit`."""
        wanted = min(limit, self._control.limit())
        if wanted <= 0:
            return ()
        if self._lookup is None:
            self._lookup = PromptLookup(self._ids)
            self._ids = []
        return self._lookup.draft(wanted)

    def record(self, drafted: int, accepted: int, tokens: Sequence[int]) -> None:
        """Takes what became of a step.

        Args:
            drafted, accepted: guesses, and those of them that came true.
            tokens: those that joined the sequence.
        """
        if self._lookup is None:
            self._ids += tokens
        else:
            self._lookup.extend(tokens)
        self._control.record(drafted, accepted, len(tokens))
