"""Numbers as people read them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: float) -> str:
    """Three or four digits and a unit: 12.3k, 1.25M, 0.0321, 2e-05."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, letter in _UNITS:
        if size >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    if value == int(value):
        return str(int(value))
    return f"{value:.4g}" if size >= 1 else f"{value:.3g}"


def axis_labels(ticks: Sequence[float]) -> list[str]:
    """Values at equal distances, with one unit and as many digits as tell them apart."""
    largest = max(map(abs, ticks), default=0.0)
    if largest < 1e-3:
        return [short(tick) for tick in ticks]
    unit, letter = next(
        ((unit, letter) for unit, letter in _UNITS if largest >= 10 * unit), (1, "")
    )
    step = ticks[1] - ticks[0] if len(ticks) > 1 else largest
    digits = min(9, max(0, math.ceil(-math.log10(step / unit) - 1e-6)))
    return [f"{tick / unit:.{digits}f}{letter}" if tick else "0" for tick in ticks]


def percent(share: float) -> str:
    """A share of one in percent."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 0:07, 12:03, 26:10:44."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(value: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,}".replace(",", "\u202f")  # a narrow space that does not break


def rates_in_words(logs: Mapping[str, float], *, padding: bool = True) -> list[str]:
    """What is known of a run's rates, one phrase each; with or without the share of padding."""
    said = []
    if "tokens_per_second" in logs:
        said.append(f"{short(logs['tokens_per_second'])} tokens/s")
    if "trained_share" in logs:
        said.append(f"{percent(logs['trained_share'])} trained")
    if padding and "padding_share" in logs:
        said.append(f"{percent(logs['padding_share'])} padding")
    if "mfu" in logs:
        said.append(f"MFU {percent(logs['mfu'])}")
    return said
