"""Training runs that the page starts: what is run, how it goes, how it is stopped.

A run is a child process with the command line that a person would type. What it is, is kept in a
file, so that it goes on while pages are reloaded and servers restarted. Knows no page.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.errors import SettingsError

KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "full": ("fastchat.train.train", ()),
    "lora": ("fastchat.train.train_lora", ()),
    "qlora": ("fastchat.train.train_lora", ("--q_lora", "True")),
}
"""What is trained: the module that does it, and its own flags."""

MODES = ("split_example_loss", "last_response_loss", "efficient_loss")
LOG_NAME = "page-train.log"
_MODELS = ("*/config.json", "*/*/config.json")
_DATA = ("*.json*", "*.parquet", "data/*", "*/data/*", "*/*/data/*")
_DATA_SUFFIXES = {".json", ".jsonl", ".parquet"}
_RECIPES = ("*.yaml", "recipes/*.yaml", "*/recipes/*.yaml")
_MOST_OFFERED = 100
_METRICS = "metrics.jsonl"
_LOG_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to be.

    Attributes:
        kind: one of `KINDS`.
        mode: one of `MODES`.
        model: folder of the model to start from.
        data: file of conversations.
        output: folder for what comes out.
        recipe: a YAML file of flags; "" for none.
        more: further flags, as they would be typed.
    """

    kind: str
    mode: str
    model: str
    data: str
    output: str
    epochs: float = 3.0
    learning_rate: float = 2e-5
    max_length: int = 1024
    recipe: str = ""
    more: str = ""

    def command(self) -> list[str]:
        """What is run.

        Raises:
            SettingsError: something is missing or is not there; says what.
        """
        for name in ("model", "data", "output"):
            if not getattr(self, name).strip():
                raise SettingsError(f"The {name} is missing.")
        if not Path(self.data).exists():
            raise SettingsError(f"There is no data file {self.data}.")
        if self.recipe and not Path(self.recipe).exists():
            raise SettingsError(f"There is no recipe {self.recipe}.")
        try:
            more = shlex.split(self.more)
        except ValueError as error:
            raise SettingsError(f"The further flags cannot be read: {error}.") from error
        module, own = KINDS[self.kind]
        recipe = ["--config", self.recipe] if self.recipe else []
        flags = {
            "model_name_or_path": self.model,
            "data_path": self.data,
            "output_dir": self.output,
            self.mode: "True",
            "num_train_epochs": f"{self.epochs:g}",
            "learning_rate": f"{self.learning_rate:g}",
            "model_max_length": str(self.max_length),
            "logging_steps": "1",
            "report_to": "none",
        }
        given = [part for name, value in flags.items() for part in (f"--{name}", value)]
        return [sys.executable, "-m", module, *recipe, *own, *given, *more]

    def rows_command(self, rows: int) -> list[str]:
        """What shows the first rows of the data as training sees them."""
        return [
            *(sys.executable, "-m", "fastchat.data.validate"),
            *("--model-name-or-path", self.model, "--data-path", self.data),
            *("--mode", self.mode, "--model-max-length", str(self.max_length)),
            *("--rows", str(rows)),
        ]


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run goes.

    Attributes:
        running: whether its process is there.
        losses: steps and their losses.
        log: the last lines of what it said.
    """

    output: str
    running: bool
    losses: list[tuple[int, float]]
    log: str


@dataclass(frozen=True, slots=True)
class Offers:
    """Paths that a run could be made of, relative to the folder in which they were found."""

    models: list[str]
    data: list[str]
    recipes: list[str]


def offers(folder: Path) -> Offers:
    """What lies in a folder and not far below it."""

    def found(patterns: Sequence[str]) -> list[Path]:
        paths = {path.relative_to(folder) for each in patterns for path in folder.glob(each)}
        visible = (path for path in paths if not any(part[0] == "." for part in path.parts))
        return sorted(visible)[:_MOST_OFFERED]

    return Offers(
        [str(path.parent) for path in found(_MODELS)],
        [str(path) for path in found(_DATA) if path.suffix in _DATA_SUFFIXES],
        [str(path) for path in found(_RECIPES)],
    )


class Runs:
    """The run that was started last.

    Args:
        state: a file that tells which one it is.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def folder(self) -> Path:
        """Where what is known of runs is kept."""
        return self._state.parent

    def start(self, plan: Plan) -> None:
        """Starts a run.

        Raises:
            SettingsError: the plan cannot be run, or a run goes on.
        """
        command = plan.command()
        before = self.progress()
        if before is not None and before.running:
            raise SettingsError("A run goes on already; stop it first.")
        output = Path(plan.output)
        output.mkdir(parents=True, exist_ok=True)
        with (output / LOG_NAME).open("wb") as log:
            child = subprocess.Popen(  # noqa: S603  (a module of ours, no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[child.pid] = child
        told = {"pid": child.pid, "born": _born(child.pid), "output": str(output.resolve())}
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self._state.write_text(json.dumps(told), encoding="utf-8")

    def stop(self) -> None:
        """Asks the run to end; what it has saved stays."""
        told = self._told()
        if told is not None and self._runs(told):
            os.killpg(told["pid"], signal.SIGTERM)

    def progress(self) -> Progress | None:
        """How the last run goes; None if there was none."""
        told = self._told()
        if told is None:
            return None
        output = Path(told["output"])
        return Progress(
            told["output"], self._runs(told), _losses(output / _METRICS), _tail(output / LOG_NAME)
        )

    def _told(self) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return told

    def _runs(self, told: Mapping[str, Any]) -> bool:
        child = self._children.get(told["pid"])
        if child is not None:
            return child.poll() is None
        # Started by a server that is gone: the number may be another process's by now.
        return told["born"] is not None and _born(told["pid"]) == told["born"]


def _born(pid: int) -> int | None:
    """When a process was started, in ticks since the system was; None if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = status.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def _losses(path: Path) -> list[tuple[int, float]]:
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            logged = json.loads(line)
            found.append((int(logged["step"]), float(logged["loss"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _tail(path: Path) -> str:
    try:
        data = path.read_bytes()[-_LOG_BYTES:]
    except OSError:
        return ""
    return "\n".join(data.decode(errors="replace").replace("\r", "\n").splitlines()[-20:])
