"""Starts a training run: parses the command line, and only then loads what trains."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastchat.errors import FastChatError
from fastchat.train.distributed import end_process
from fastchat.train.settings import parse_settings

_LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


def train(
    argv: Sequence[str] | None = None, callbacks: Sequence[Any] = (), *, lora: bool = False
) -> dict[str, float]:
    """Trains as a command line says and saves the result in `--output_dir`.

    Args:
        argv: the command line without the program's name; `sys.argv`'s if None.
        callbacks: transformers `TrainerCallback`s, to watch the run or to stop it. Where
            there are any, the Trainer's own progress bar and printed figures are left out.
        lora: take the LoRA flags and train an adapter.

    Returns:
        The run's figures: `loss` (the last one logged), `train_loss` (mean over the run),
        `train_runtime` (s), `eval_loss` where there is evaluation data, and others.

    Raises:
        FastChatError: flags, data or model cannot be used, or the loss is no number.
    """
    settings = parse_settings(argv, lora=lora)

    from fastchat.train.fit import fit

    return fit(settings, callbacks)


def main(*, lora: bool = False) -> int:
    """What the entry points run: `train`, with errors as messages. Returns the exit status."""
    return run(partial(train, lora=lora))


def run(start: Callable[[], object]) -> int:
    """Runs a trainer, with errors as messages and a log. Returns the exit status.

    Where DeepSpeed runs, the process ends here instead.
    """
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format=_LOG_FORMAT)
    status = 0
    try:
        start()
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    end_process(status)
    return status
