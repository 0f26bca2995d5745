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
        self._sample = bind(pool.cdll, "fastchat_sample", [ctypes.c_void_p, ctypes.c_void_p])

    def pick(self, logits: Tensor, batch: Batch) -> Picks:
        """See `Picker.pick`."""
        rows = len(batch.uniform)
        address = checked("logits", logits, (rows, None), torch.float32, strided=True)
        settings = batch.settings
        widest = max(int(settings.alternatives.max(initial=0)), 0)
        widest = min(widest, self._vocab_size)
        words = batch.masks.strides[0] if len(batch.masks) else 0
        first = batch.masks.ctypes.data
        masks = np.where(batch.mask_rows >= 0, first + batch.mask_rows * words, 0)
        tokens, statuses = np.empty(rows, np.int32), np.empty(rows, np.int32)
        logprobs = np.zeros(rows, np.float32)
        best = np.empty((rows, widest), np.int32)
        best_logprobs = np.empty((rows, widest), np.float32)
        arrays: dict[str, NDArray[Any]] = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "penalty": settings.penalty,
            "top_k": settings.top_k,
            "uniform": batch.uniform,
            "masks": masks,
            "alternatives": settings.alternatives,
            "seen_starts": batch.seen.starts,
            "shift_starts": batch.shifted.starts,
            "ban_starts": batch.banned.starts,
            "seen": batch.seen.ids,
            "shifted": batch.shifted.ids,
            "banned": batch.banned.ids,
            "shifts": _values(batch.shifted),
            "token": tokens,
            "status": statuses,
            "logprob": logprobs,
            "best": best,
            "best_logprob": best_logprobs,
        }
        job = _Job(
            rows=rows,
            stride=logits.stride(0),
            vocab=self._vocab_size,
            logits=address,
            widest=widest,
            **{name: array.ctypes.data for name, array in arrays.items()},
        )
        self._sample(self._pool.handle, ctypes.byref(job))
        return Picks(
            tokens.tolist(),
            statuses.tolist(),
            logprobs.tolist(),
            _tops(settings.alternatives, best, best_logprobs),
        )


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
