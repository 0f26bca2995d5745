"""Grammar masks of a step's rows, computed in the background while the model computes logits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastchat.engine.sampling.state import Row
from fastchat.errors import FastChatError, GenerationError


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of those rows that have a grammar.

    Attributes:
        words: (masks, W) int32, a bit for each token.
        rows: (R,) int64, the mask of each row; -1 for none.
        ending: rows that may only end.
        errors: of rows whose grammar cannot be followed, by row.
    """

    words: NDArray[np.int32]
    rows: NDArray[np.int64]
    ending: frozenset[int] = frozenset()
    errors: dict[int, FastChatError] = field(default_factory=dict)


def no_masks(rows: int) -> Masks:
    """For rows none of which has a grammar."""
    return Masks(np.zeros((0, 0), np.int32), np.full(rows, -1, np.int64))


def filled(rows: Sequence[Row]) -> Masks:
    """Computes all masks of some rows."""
    matchers = {place: matcher for place, row in enumerate(rows) if (matcher := row.state.matcher)}
    masks = no_masks(len(rows))
    if not matchers:
        return masks
    width = next(iter(matchers.values())).words
    masks = Masks(np.empty((len(matchers), width), np.int32), masks.rows)
    ending: set[int] = set()
    for index, (place, matcher) in enumerate(matchers.items()):
        masks.rows[place] = index
        try:
            if matcher.fill(masks.words[index], rows[place].assumed):
                ending.add(place)
        except Exception as error:  # noqa: BLE001  (one row's grammar is no other row's)
            masks.words[index] = -1
            masks.errors[place] = _told(error)
    return Masks(masks.words, masks.rows, frozenset(ending), masks.errors)


def _told(error: Exception) -> FastChatError:
    """What is told of a row whose grammar failed."""
    if isinstance(error, FastChatError):
        return error
    told = GenerationError(f"The grammar failed: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told


class MaskWorker:
    """Computes masks ahead of time in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammar")
        self._pending: tuple[tuple[Row, ...], Future[Masks]] | None = None

    def prefetch(self, rows: Sequence[Row]) -> None:
        """Starts with the masks of rows that will be sampled next."""
        self._settle()
        if any(row.state.matcher is not None for row in rows):
            kept = tuple(rows)
            self._pending = kept, self._thread.submit(filled, kept)

    def collect(self, rows: Sequence[Row]) -> Masks:
        """The masks of rows: those that were prefetched, or fresh ones."""
        pending = self._pending
        masks = self._settle()
        if masks is not None and pending is not None and pending[0] == tuple(rows):
            return masks
        return filled(rows)

    def close(self) -> None:
        """Ends the thread."""
        self._settle()
        self._thread.shutdown()

    def _settle(self) -> Masks | None:
        """Waits for what was started, so that nobody moves a matcher under it."""
        if self._pending is None:
            return None
        _, future = self._pending
        self._pending = None
        return future.result()
