"""metrics.jsonl: everything a run logs, one JSON object a line, as one curve over resumptions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fastchat.train.report.files import write_atomically

FILE_NAME = "metrics.jsonl"
_SUMMARY = "train_runtime"  # only in what a run logs when it is over


class MetricsWriter(TrainerCallback):
    """Appends what is logged, on the main process only.

    A line holds `step`, `epoch`, `time` (seconds since 1970) and the figures. A figure that
    is not finite is null, and named in `nonfinite`. Each line is written at once and whole,
    so a reader that follows the file sees only whole lines. A run that goes on from a
    checkpoint first takes out the lines behind it.

    Args:
        path: the file.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the file anew, or goes on behind the step that training goes on from."""
        del args, control, kwargs
        if not state.is_world_process_zero:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        cut_after(self._path, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Appends a line."""
        del args, control, kwargs
        if state.is_world_process_zero and logs:
            append(self._path, as_line(logs, state.global_step, self._clock()))


def as_line(logs: Mapping[str, Any], step: int, now: float) -> dict[str, Any]:
    """What is logged as an object that JSON can say."""
    line: dict[str, Any] = {"step": step, "epoch": logs.get("epoch"), "time": round(now, 3)}
    figures = {name: value for name, value in logs.items() if name not in line}
    nonfinite = [
        name
        for name, value in figures.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    line |= figures | dict.fromkeys(nonfinite)
    if nonfinite:
        line["nonfinite"] = nonfinite
    return line


def append(path: Path, item: Mapping[str, Any]) -> None:
    """Adds one JSON object as a line, in a single write."""
    with path.open("ab", buffering=0) as file:
        file.write(as_jsonl([item]))


def cut_after(path: Path, step: int) -> None:
    """Keeps the lines up to a step; step 0 keeps none. The old file stays until the end.

    A last line that a killed run left half-written goes, and so does the summary of a run
    that is now going on.
    """
    if not path.exists():
        return
    kept = [
        line
        for line in read_lines(path)
        if step > 0 and line.get("step", 0) <= step and _SUMMARY not in line
    ]
    write_atomically(path, as_jsonl(kept))


def as_jsonl(items: Iterable[Mapping[str, Any]]) -> bytes:
    """Objects as lines of JSON, for a file."""
    lines = (json.dumps(item, ensure_ascii=False, allow_nan=False) for item in items)
    # Half a surrogate pair, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; what is no whole line is passed over."""
    found = []
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
