"""Picks tokens with the compiled kernel, rows spread over the threads of a pool."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastchat.engine.native.library import ThreadPool, bind, checked
from fastchat.engine.sampling.picker import Batch, Entries, Picks, Top

_COUNTS = ("rows", "stride", "vocab")
_INPUTS = ("logits", "temperature", "top_p", "min_p", "penalty", "top_k", "uniform", "masks")
_LISTS = ("alternatives", "seen_starts", "shift_starts", "ban_starts", "seen", "shifted", "banned")
_RESULTS = ("token", "status", "logprob", "best", "best_logprob")


class _Job(ctypes.Structure):
    """`SamplingJob` of fastchat/engine/native/sampling.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_void_p) for name in (*_INPUTS, *_LISTS, "shifts")),
        ("widest", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _RESULTS),
    ]


class NativePicker:
    """See `Picker`.

    Args:
        vocab_size: logits of a row that count; what stands behind them is padding.
        pool: threads to share the rows among.
    """

    def __init__(self, vocab_size: int, pool: ThreadPool) -> None:
        self._vocab_size = vocab_size
        self._pool = pool
        self._call: _Call | None = None
        self._sample = bind(pool.cdll, "fastchat_sample", [ctypes.c_void_p, ctypes.c_void_p])

    def pick(self, logits: Tensor, batch: Batch) -> Picks:
        """See `Picker.pick`."""
        address = checked("logits", logits, (len(batch.uniform), None), torch.float32, strided=True)
        call = self._call
        if call is None or not call.serves(batch):
            call = self._call = _Call(batch, self._vocab_size)
        call.job.logits, call.job.stride = address, logits.stride(0)
        call.job.uniform = batch.uniform.ctypes.data
        self._sample(self._pool.handle, ctypes.byref(call.job))
        return call.picks()


class _Call:
    """What the kernel is given and where it answers; serves again while nothing but logits change.

    Args:
        batch: what is asked.
        vocab_size: logits of a row that count.

    Attributes:
        job: complete but for the logits, their stride and the random numbers.
    """

    def __init__(self, batch: Batch, vocab_size: int) -> None:
        settings = self._settings = batch.settings
        self._plain = _plain(batch)
        rows = len(batch.uniform)
        widest = min(max(int(settings.alternatives.max(initial=0)), 0), vocab_size)
        words = batch.masks.strides[0] if len(batch.masks) else 0
        first = batch.masks.ctypes.data
        masks = np.where(batch.mask_rows >= 0, first + batch.mask_rows * words, 0)
        self._tokens, self._statuses = np.empty(rows, np.int32), np.empty(rows, np.int32)
        self._logprobs = np.zeros(rows, np.float32)
        self._best = np.empty((rows, widest), np.int32)
        self._best_logprobs = np.empty((rows, widest), np.float32)
        arrays: dict[str, NDArray[Any]] = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "penalty": settings.penalty,
            "top_k": settings.top_k,
            "masks": masks,
            "alternatives": settings.alternatives,
            "seen_starts": batch.seen.starts,
            "shift_starts": batch.shifted.starts,
            "ban_starts": batch.banned.starts,
            "seen": batch.seen.ids,
            "shifted": batch.shifted.ids,
            "banned": batch.banned.ids,
            "shifts": _values(batch.shifted),
            "token": self._tokens,
            "status": self._statuses,
            "logprob": self._logprobs,
            "best": self._best,
            "best_logprob": self._best_logprobs,
        }
        self._kept = batch, arrays
        self.job = _Job(
            rows=rows,
            vocab=vocab_size,
            widest=widest,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )

    def serves(self, batch: Batch) -> bool:
        """Whether another batch asks the same but for its random numbers."""
        return self._plain and batch.settings is self._settings and _plain(batch)

    def picks(self) -> Picks:
        """The kernel's answer."""
        return Picks(
            self._tokens.tolist(),
            self._statuses.tolist(),
            self._logprobs.tolist(),
            _tops(self._settings.alternatives, self._best, self._best_logprobs),
        )


def _plain(batch: Batch) -> bool:
    """Whether no logit is changed and no grammar rules."""
    entries = (batch.seen, batch.shifted, batch.banned)
    return not len(batch.masks) and not any(len(each.ids) for each in entries)


def _values(entries: Entries) -> NDArray[np.float32]:
    assert entries.values is not None
    return entries.values


def _tops(
    alternatives: NDArray[np.int32], ids: NDArray[np.int32], logprobs: NDArray[np.float32]
) -> list[Top]:
    if not ids.shape[1]:
        return [()] * len(ids)
    return [
        tuple(zip(ids[row, :count].tolist(), logprobs[row, :count].tolist(), strict=True))
        for row, count in enumerate(alternatives.clip(0).tolist())
    ]
