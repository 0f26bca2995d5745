"""Faster float32 matrix products where a processor has them without losing precision.

Some processors multiply float32 through oneDNN's bfloat16 units in several exact parts,
twice as fast as the usual library; others would round. So it is tried before it is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_SIZE = (256, 1024, 1024)
_TOLERANCE = 2e-6
"""Largest error, relative to the largest entry, that float32 itself is allowed."""

_GAIN = 1.2


def use_fastest_float32() -> bool:
    """Switches float32 products to oneDNN's way if it is exact and faster here; says if so."""
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    usual = settings.fp32_precision
    rows, inner, columns = _SIZE
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    exact = left.double() @ right.double()
    usual_s = _seconds(lambda: left @ right)
    settings.fp32_precision = "bf16"
    error = float(((left @ right).double() - exact).abs().max() / exact.abs().max())
    if error <= _TOLERANCE and _seconds(lambda: left @ right) * _GAIN < usual_s:
        logger.info("float32 products use oneDNN's bfloat16 units; error %.1e", error)
        return True
    settings.fp32_precision = usual
    return False


def _seconds(product: Callable[[], Tensor]) -> float:
    """The best of a few: what the processor can do, whatever else it is doing."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return best
