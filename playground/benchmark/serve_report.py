"""What the parts of `serve.py` share: what they ask, and how they print what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from serve_load import Load

CHAT = "/v1/chat/completions"

Value = Callable[[Load], float]
Ways = dict[str, Callable[[], Load]]
"""What is measured in turn, by name."""


def bodies(count: int, **more: Any) -> list[dict[str, Any]]:
    """Requests that differ, so that nobody answers one from the memory of another."""
    return [
        {
            "model": "echo",
            "messages": [{"role": "user", "content": f"{number:06d} tell me more of it"}],
            "stream": True,
            "temperature": 0,
            **more,
        }
        for number in range(count)
    ]


def in_turn(ways: Ways, rounds: int) -> dict[str, list[Load]]:
    """Runs of all ways, one after the other, round by round."""
    runs: dict[str, list[Load]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            found = run()
            if not found.complete:
                raise SystemExit(f"{name}: no answer is complete: {found.answers[0].failure}")
            runs[name].append(found)
    return runs


def row(name: str, runs: Sequence[Load], value: Value, unit: str) -> None:
    """Prints the median of a value over runs, with its range."""
    values = [value(run) for run in runs]
    lost = sum(len(run.answers) - len(run.complete) for run in runs)
    print(f"{name:<44}{_told(values)} {unit}" + (f"  LOST {lost}" if lost else ""), flush=True)


def ratio(
    name: str, above: Sequence[Load], below: Sequence[Load], value: Value, target: str = ""
) -> None:
    """Prints by how much one way's value is another's, round by round, and what it should be."""
    told_ratio(name, [value(a) / value(b) for a, b in zip(above, below, strict=True)], target)


def told_ratio(name: str, values: Sequence[float], target: str = "") -> None:
    """Prints ratios, one a round."""
    print(f"{name:<44}{_told(values)} x" + (f"  (target: {target})" if target else ""), flush=True)


def _told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):>12.4g} ({min(values):.4g} to {max(values):.4g})"
