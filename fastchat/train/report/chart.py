"""Charts as SVG, to stand in a page: colours and fonts come from the page's style. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from fastchat.train.report.figures import axis_labels, count, short
from fastchat.train.report.series import Point

_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 10, 26  # margins
_FEW_POINTS = 50  # up to here each is marked, and says its value when pointed at


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend.
        points: in the order of their steps; drawn as they are.
        style: the class that gives its colour.
    """

    name: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """Places in the picture for values in the data."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        room = self.height - _TOP - _BOTTOM
        return _TOP + (1 - (value - low) / (high - low)) * room


def line_chart(title: str, lines: Sequence[Line], *, width: int = 500, height: int = 190) -> str:
    """Lines over steps. There has to be a point."""
    steps = [step for line in lines for step, _ in line.points]
    values = [value for line in lines for _, value in line.points]
    ticks = nice_ticks(min(values), max(values), 6)
    frame = _Frame(width, height, _wide(min(steps), max(steps)), _wide(ticks[0], ticks[-1]))
    parts = [*_grid(frame, ticks), *_below(frame)]
    for line in lines:
        places = [(frame.x(step), frame.y(value)) for step, value in line.points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line {line.style}" points="{drawn}"/>')
        if len(places) <= _FEW_POINTS:
            parts += [
                f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5">'
                f"<title>step {count(int(step))}: {short(value)}</title></circle>"
                for (x, y), (step, value) in zip(places, line.points, strict=True)
            ]
    return _svg(frame, title, parts)


def histogram(title: str, values: Sequence[int], *, width: int = 500, height: int = 190) -> str:
    """How often whole numbers occur, in equal bins from 0 on. There has to be one."""
    edges = nice_ticks(0, max(values) + 1, min(50, max(values) + 1))
    step = edges[1] - edges[0]
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(int(value / step), len(counts) - 1)] += 1
    ticks = nice_ticks(0, max(counts), 5)
    frame = _Frame(width, height, (0.0, edges[-1]), _wide(0.0, ticks[-1]))
    parts = [*_grid(frame, ticks), *_below(frame)]
    for start, number in zip(edges, counts, strict=False):
        left, right, top = frame.x(start), frame.x(start + step), frame.y(number)
        parts.append(
            f'<rect class="bar" x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}"'
            f' height="{frame.y(0) - top:.1f}"><title>{start:g} to {start + step:g}:'
            f" {count(number)}</title></rect>"
        )
    return _svg(frame, title, parts)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round values at equal distances that enclose a range, about so many."""
    if high <= low:
        # The whole of a single value, so that a flat line lies between two ticks.
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _wide(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _grid(frame: _Frame, ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick, label in zip(ticks, axis_labels(ticks), strict=True):
        y = frame.y(tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{frame.width - _RIGHT}"'
            f' y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return parts


def _below(frame: _Frame) -> list[str]:
    """The whole numbers under the chart."""
    low, high = frame.x_range
    ticks = [tick for tick in nice_ticks(low, high, 6) if low <= tick <= high and tick % 1 == 0]
    return [
        f'<text x="{frame.x(tick):.1f}" y="{frame.height - 8}" text-anchor="middle">{label}</text>'
        for tick, label in zip(ticks, axis_labels(ticks), strict=True)
    ]


def _svg(frame: _Frame, title: str, parts: Iterable[str]) -> str:
    size = f"0 0 {frame.width} {frame.height}"
    body = "".join(parts)
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{body}</svg>'
