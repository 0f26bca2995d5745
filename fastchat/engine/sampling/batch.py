"""Samples all rows of a step at once.

Gathers what the rows want into a few arrays; what picks the tokens sees no request. The work
in Python is a few microseconds a row, and nothing of it grows with the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastchat.engine.native.library import ThreadPool
from fastchat.engine.sampling.masks import Masks, MaskWorker
from fastchat.engine.sampling.native import NativePicker
from fastchat.engine.sampling.picker import Batch, Entries, Picker, Sampled, Settings, Status
from fastchat.engine.sampling.random import uniforms
from fastchat.engine.sampling.state import NO_EDITS, NO_IDS, NO_VALUES, Edits, Row, RowState
from fastchat.engine.sampling.torch_picker import TorchPicker
from fastchat.errors import FastChatError


class BatchSampler:
    """Picks the next token of every row of a step.

    Args:
        vocab_size: ids go up to it; logits may have more columns, which are padding.
        pool: threads for the compiled kernel, if logits are on the processor; None picks with
            torch's operations wherever the logits are.
    """

    def __init__(self, vocab_size: int, pool: ThreadPool | None = None) -> None:
        self._picker: Picker = (
            TorchPicker(vocab_size) if pool is None else NativePicker(vocab_size, pool)
        )
        self._masks = MaskWorker()
        self._states: list[RowState] = []
        self._settings = _settings_of([])

    def prefetch(self, rows: Sequence[Row]) -> None:
        """Starts computing what the grammars of these rows allow.

        To be called before the model's forward pass; optional. Until `sample` has been called
        for them, no token may be accepted for any of the rows.
        """
        self._masks.prefetch(rows)

    def sample(self, logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
        """One token for each row; what goes wrong in one row is said there.

        Does not accept the tokens: that is `RowState.accept`.

        Args:
            logits: (R, V) float32, each row contiguous; they are overwritten.
            rows: R rows.
        """
        if not rows:
            return []
        masks = self._masks.collect(rows)
        picks = self._picker.pick(logits, self._batch(rows, masks))
        results = [
            Sampled(token, logprob if alternatives >= 0 else None, top)
            for token, logprob, top, alternatives in zip(
                picks.tokens,
                picks.logprobs,
                picks.tops,
                self._settings.alternatives.tolist(),
                strict=True,
            )
        ]
        errors: dict[int, FastChatError] = {
            row: Status(status).error() for row, status in enumerate(picks.statuses) if status
        }
        for row, error in (errors | masks.errors).items():
            results[row] = Sampled(-1, error=error)
        return results

    def close(self) -> None:
        """Ends the thread that computes grammar masks."""
        self._masks.close()

    def _batch(self, rows: Sequence[Row], masks: Masks) -> Batch:
        states = [row.state for row in rows]
        if states != self._states:
            self._states, self._settings = states, _settings_of(states)
        edits = [
            row.state.edits(row.assumed, ending=place in masks.ending)
            for place, row in enumerate(rows)
        ]
        seen, shifted, banned = _gathered(edits)
        return Batch(
            self._settings,
            self._draws(rows),
            seen,
            shifted,
            banned,
            masks.words,
            masks.rows,
        )

    def _draws(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """(R,) the rows' random numbers; nobody looks at them where all rows are greedy."""
        if not self._settings.temperature.any():
            return np.zeros(len(rows))
        places = np.array([row.state.count + len(row.assumed) for row in rows], np.uint64)
        return uniforms(self._settings.seeds, places)


def _settings_of(states: Sequence[RowState]) -> Settings:
    params = [state.params for state in states]

    def column(values: list[float]) -> NDArray[np.float32]:
        return np.array(values, np.float32)

    return Settings(
        column([0.0 if each.greedy else each.temperature for each in params]),
        column([each.top_p for each in params]),
        column([each.min_p for each in params]),
        column([each.repetition_penalty for each in params]),
        np.array([min(each.top_k, 2**31 - 1) for each in params], np.int32),
        np.array([-1 if each.logprobs is None else each.logprobs for each in params], np.int32),
        np.array([state.seed for state in states], np.uint64),
    )


def _gathered(edits: Sequence[Edits]) -> tuple[Entries, Entries, Entries]:
    """The rows' edits, one behind the other."""
    if all(each is NO_EDITS for each in edits):
        nothing = Entries(np.zeros(len(edits) + 1, np.int32), NO_IDS, NO_VALUES)
        return nothing, nothing, nothing
    counts = np.zeros((3, len(edits) + 1), np.int32)
    seen, shifted, shifts = [NO_IDS], [NO_IDS], [NO_VALUES]
    banned: list[int] = []
    for row, each in enumerate(edits, start=1):
        if each is NO_EDITS:
            continue
        counts[:, row] = len(each.seen), len(each.shifted), len(each.banned)
        seen.append(each.seen)
        shifted.append(each.shifted)
        shifts.append(each.shifts)
        banned += each.banned
    starts = counts.cumsum(axis=1, dtype=np.int32)
    return (
        Entries(starts[0], np.concatenate(seen)),
        Entries(starts[1], np.concatenate(shifted), np.concatenate(shifts)),
        Entries(starts[2], np.array(banned, np.int32)),
    )
