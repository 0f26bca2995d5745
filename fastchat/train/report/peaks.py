"""The best rates of well-known GPUs, from their makers' data sheets: dense, not sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp16", "tf32", "fp32"]


@dataclass(frozen=True, slots=True)
class Peak:
    """TFLOP/s of matrix products of one GPU; None where it cannot do them."""

    bf16: float | None
    fp16: float | None
    tf32: float | None
    fp32: float


_A100 = Peak(312, 312, 156, 19.5)
_H100_SXM = Peak(989.4, 989.4, 494.7, 66.9)
_H100_PCIE = Peak(756, 756, 378, 51)
_H100_NVL = Peak(835, 835, 417.5, 60)

_PEAKS: tuple[tuple[str, Peak], ...] = (
    ("V100S", Peak(None, 130, None, 16.4)),
    ("V100-PCIE", Peak(None, 112, None, 14)),
    ("V100", Peak(None, 125, None, 15.7)),
    ("A100", _A100),
    ("A800", _A100),
    ("H100 PCIE", _H100_PCIE),
    ("H100 NVL", _H100_NVL),
    ("H100", _H100_SXM),
    ("H800 PCIE", _H100_PCIE),
    ("H800", _H100_SXM),
    ("H200 NVL", _H100_NVL),
    ("H200", _H100_SXM),
    ("H20", Peak(148, 148, 74, 44)),
    ("L40S", Peak(362.05, 362.05, 183, 91.6)),
    ("L20", Peak(119.5, 119.5, 59.8, 59.8)),
    # With sums in float32, as training has them; with sums in float16 it is twice as fast.
    ("RTX 4090", Peak(165.2, 165.2, 82.6, 82.6)),
)
"""Part of the name that torch.cuda.get_device_name gives, upper case; the first that fits."""


def peak_tflops(device_name: str, precision: Precision) -> float | None:
    """The best rate of a GPU in TFLOP/s; None for an unknown one, or what it cannot do.

    Args:
        device_name: as torch.cuda.get_device_name gives it.
        precision: of the numbers that are multiplied.
    """
    name = device_name.upper()
    peak = next((peak for part, peak in _PEAKS if part in name), None)
    if peak is None or "LAPTOP" in name or "4090 D" in name or "MIG" in name:
        return None
    rate: float | None = getattr(peak, precision)
    return rate
