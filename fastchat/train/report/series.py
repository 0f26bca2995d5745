"""What a run logged, as series to draw and figures to show. Pure.

A history is a list of logs, each with its `step`, as `TrainerState.log_history` holds them
and as metrics.jsonl is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from fastchat.train.report.figures import count, duration, short

Point = tuple[float, float]
"""(step, value)."""

History = Sequence[Mapping[str, Any]]


def series(history: History, name: str) -> list[Point]:
    """The finite values of a figure, by step.

    Of two at one step the earlier counts: after the last step a run may load its best model
    and evaluate that one too.
    """
    found: dict[float, float] = {}
    for log in history:
        value = log.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(float(log["step"]), float(value))
    return sorted(found.items())


def smooth(points: Sequence[Point], span: int) -> list[Point]:
    """A running mean with weights that fade over `span` points; starts unbiased."""
    fade = 1 - 2 / (span + 1)
    total = weight = 0.0
    smoothed = []
    for step, value in points:
        total = fade * total + value
        weight = fade * weight + 1
        smoothed.append((step, total / weight))
    return smoothed


def thin(points: Sequence[Point], most: int = 600) -> list[Point]:
    """At most so many points, with every stretch's lowest and highest among them."""
    if len(points) <= most:
        return list(points)
    edges = [round(index * len(points) / (most // 2)) for index in range(most // 2 + 1)]
    kept: list[Point] = []
    for start, end in pairwise(edges):
        stretch = points[start:end]
        extremes = {min(stretch, key=_value), max(stretch, key=_value)}
        kept += sorted(extremes)
    return kept


def _value(point: Point) -> float:
    return point[1]


def highlights(history: History) -> list[tuple[str, str]]:
    """A run in a few figures, each as (what, how much)."""
    found = []
    if losses := series(history, "loss"):
        found.append(("loss at the end", short(losses[-1][1])))
    if evaluations := series(history, "eval_loss"):
        step, best = min(evaluations, key=_value)
        found.append((f"best evaluation loss, step {count(int(step))}", short(best)))
    steps = max((int(log["step"]) for log in history), default=0)
    found.append(("steps", count(steps)))
    if runtimes := series(history, "train_runtime"):
        found.append(("time", duration(runtimes[-1][1])))
    if rates := series(history, "tokens_per_second"):
        found.append(("tokens a second", short(median(map(_value, rates)))))
    if utilisation := series(history, "mfu"):
        found.append(("MFU", f"{median(map(_value, utilisation)):.0%}"))
    return found
