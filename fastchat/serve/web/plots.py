"""Plots as SVG in the page's own colours: nothing to load, light or dark. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from fastchat.serve.web.ratings import Floats, Rated

_ROW = 30
_NAMES = 190
_WIDTH = 720
_INK = "var(--body-text-color)"
_LINE = "var(--border-color-primary)"
_MARK = "var(--color-accent)"


def ratings_plot(rated: Sequence[Rated], title: str) -> str:
    """Each model's rating as a dot on its interval."""
    low = min(each.low for each in rated)
    high = max(each.high for each in rated)
    span = max(high - low, 1.0)
    plot = _WIDTH - _NAMES - 60

    def x(value: float) -> float:
        return _NAMES + 10 + (value - low) / span * plot

    parts = []
    for tick in np.linspace(low, high, 5):
        at = x(float(tick))
        parts.append(_line(at, 8, at, _ROW * len(rated) + 8, _LINE, 1))
        parts.append(_text(at, _ROW * len(rated) + 26, f"{tick:.0f}", "middle"))
    for row, each in enumerate(rated):
        y = _ROW * row + _ROW / 2 + 8
        parts.append(_text(_NAMES, y + 5, _short(each.model), "end"))
        parts.append(_line(x(each.low), y, x(each.high), y, _MARK, 3))
        parts.append(f'<circle cx="{x(each.rating):.1f}" cy="{y:.1f}" r="6" fill="{_MARK}"/>')
    return _svg(parts, _WIDTH, _ROW * len(rated) + 36, title)


def wins_plot(wins: Floats, models: Sequence[str], title: str) -> str:
    """How often the row's model won against the column's, (M, M), in per cent."""
    cell = 88
    parts = []
    for row, name in enumerate(models):
        y = cell * row + 30
        parts.append(_text(_NAMES, y + cell / 2 + 5, _short(name), "end"))
        parts.append(_text(_NAMES + 10 + cell * row + cell / 2, 20, _short(name, 11), "middle"))
        for column in range(len(models)):
            games = wins[row, column] + wins[column, row]
            if row == column or not games:
                continue
            share = wins[row, column] / games
            left = _NAMES + 10 + cell * column
            parts.append(
                f'<rect x="{left}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="4"'
                f' fill="{_MARK}" fill-opacity="{0.08 + 0.5 * share:.2f}"/>'
            )
            parts.append(_text(left + cell / 2, y + cell / 2 + 5, f"{share:.0%}", "middle"))
    size = cell * len(models)
    return _svg(parts, _NAMES + 20 + size, size + 40, title)


def loss_plot(losses: Sequence[tuple[int, float]], title: str) -> str:
    """A curve of (step, loss)."""
    height, left = 260, 60
    steps, values = zip(*losses, strict=True)
    low, high = min(values), max(values)
    span, last = max(high - low, 1e-9), max(steps[-1], 1)
    points = [
        (left + step / last * (_WIDTH - left - 20), 10 + (high - value) / span * (height - 40))
        for step, value in losses
    ]
    parts = [
        _line(left, 10, left, height - 30, _LINE, 1),
        _line(left, height - 30, _WIDTH - 20, height - 30, _LINE, 1),
        _text(left - 8, 20, f"{high:.3g}", "end"),
        _text(left - 8, height - 30, f"{low:.3g}", "end"),
        _text(_WIDTH - 20, height - 8, str(last), "end"),
        f'<polyline fill="none" stroke="{_MARK}" stroke-width="2" points="'
        + " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        + '"/>',
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="4" fill="{_MARK}"/>',
    ]
    return _svg(parts, _WIDTH, height, f"{title}: {values[-1]:.4g}")


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{colour}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="14" fill="{_INK}">'
        f"{html.escape(text)}</text>"
    )


def _svg(parts: Sequence[str], width: float, height: float, title: str) -> str:
    named = html.escape(title, quote=True)
    return (
        f'<figure><figcaption>{named}</figcaption><svg role="img" aria-label="{named}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px;width:100%">'
        f"{''.join(parts)}</svg></figure>"
    )
