"""Trains a model to prefer some answers to others (DPO): all weights, or an adapter.

    python -m fastchat.train.dpo --model_name_or_path MODEL --data_path preferences.jsonl \
        --output_dir OUT --use_lora True --beta 0.1

The data hold prompts, each with a chosen and a rejected answer: see
`fastchat.data.preferences`. Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: look for packages beside fastchat, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastchat.errors import SettingsError
from fastchat.train.arguments import DataArguments, LoraArguments
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.run import run
from fastchat.train.settings import Settings, parse_settings

__all__ = ["DpoArguments", "dpo_settings", "train"]


def dpo_settings(argv: Sequence[str] | None = None) -> Settings:
    """Reads a command line (`sys.argv` if None); `lora` is None where all weights are trained.

    Raises:
        SettingsError: an unknown flag, a missing one, or a value that cannot be used here.
        SystemExit: `--help` was given.
    """
    settings = parse_settings(argv, lora=True, extra=DpoArguments)
    _check_data(settings.data)
    if settings.extra.use_lora:
        return settings
    if settings.lora != LoraArguments():
        raise SettingsError(
            "LoRA flags are given, but all weights would be trained.",
            hint="Give --use_lora True, or leave them out.",
            param="use_lora",
        )
    return replace(settings, lora=None)


def _check_data(data: DataArguments) -> None:
    for name in ("last_response_loss", "split_example_loss", "efficient_loss", "lazy_preprocess"):
        if getattr(data, name):
            raise SettingsError(
                f"--{name} means nothing here: of each preference both answers are read, whole.",
                hint="Leave it out.",
                param=name,
            )
    if not data.packing:
        raise SettingsError(
            "--packing False does not go with preferences, whose prompts stand once for both"
            " answers.",
            hint="Leave it out; --per_device_train_batch_size says how many pairs go together.",
            param="packing",
        )


def train(argv: Sequence[str] | None = None, callbacks: Sequence[Any] = ()) -> dict[str, float]:
    """Trains as a command line says and saves the result in `--output_dir`.

    Args:
        argv: the command line without the program's name; `sys.argv`'s if None.
        callbacks: as for `fastchat.train.run.train`.

    Returns:
        The run's figures; see `fastchat.train.run.train`.

    Raises:
        FastChatError: flags, data or model cannot be used, or the loss is no number.
    """
    settings = dpo_settings(argv)

    from fastchat.train.dpo_task import dpo_task
    from fastchat.train.fit import fit

    return fit(settings, callbacks, dpo_task(settings))


if __name__ == "__main__":
    sys.exit(run(train))
