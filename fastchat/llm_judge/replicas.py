"""Copies of a command that share its questions, each on GPUs of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Share:
    """Which of several copies a process is."""

    index: int = 0
    count: int = 1

    @property
    def alone(self) -> bool:
        """Whether there are no other copies."""
        return self.count == 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items that are this copy's."""
        return list(items[self.index :: self.count])


def share(text: str) -> Share:
    """Reads `INDEX/COUNT`; for argparse's `type`."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"is {text!r}; INDEX/COUNT is needed, such as 0/2")
    return Share(int(index), int(count))


def run_replicas(module: str, flags: Sequence[str], copies: int, gpus_each: int) -> int:
    """Runs a module as several processes with the same flags, and waits for all.

    Returns:
        The highest of their exit statuses.
    """
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    gpus = named or [str(number) for number in range(copies * gpus_each)]
    processes = []
    try:
        for index in range(copies):
            mine = gpus[index * gpus_each : (index + 1) * gpus_each]
            processes.append(
                subprocess.Popen(  # noqa: S603 (a module of ours, no shell)
                    [sys.executable, "-m", module, *flags, "--share", f"{index}/{copies}"],
                    env=os.environ | {_VISIBLE: ",".join(mine)},
                )
            )
        return max(_status(process.wait()) for process in processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code
