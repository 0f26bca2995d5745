"""Starts a training run: parses the command line, and only then loads what trains."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastchat.errors import FastChatError
from fastchat.train.arguments import (
    DataArguments,
    ExtraTrainingArguments,
    LoraArguments,
    ModelArguments,
)
from fastchat.train.flags import FlagGroup, flags_of, parse, transformers_flags
from fastchat.train.old_flags import modernise, old_flags

_LOG_FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"


@dataclass(slots=True)
class Settings:
    """What a command line asks for.

    Attributes:
        model: which model.
        data: which data, and what of it is learned.
        training: values for `TrainingArguments`, by name; those not given are left out.
        lora: how the adapter looks; None trains all weights.
        notes: what the user should know of flags that were changed or left out.
    """

    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]
    lora: LoraArguments | None = None
    notes: list[str] = field(default_factory=list)


def parse_settings(argv: Sequence[str] | None = None, *, lora: bool = False) -> Settings:
    """Reads a trainer's command line (`sys.argv` if None); imports no torch.

    Raises:
        SettingsError: an unknown flag, a missing one or a value that cannot be used.
        SystemExit: `--help` was given.
    """
    own = flags_of(ExtraTrainingArguments)
    known = transformers_flags() | own
    old = old_flags(known)
    today = {name: flag for name, flag in known.items() if name not in old}
    today["output_dir"] = replace(today["output_dir"], required=True)
    groups = [
        FlagGroup("model", flags_of(ModelArguments)),
        FlagGroup("data", flags_of(DataArguments)),
        FlagGroup("LoRA", flags_of(LoraArguments) if lora else {}),
        FlagGroup("training", own | today),
        FlagGroup("old names", {name: item.flag for name, item in old.items()}),
    ]
    description = "Fine-tunes a Yuan2 model" + (" with LoRA." if lora else ".")
    model, data, adapter, training, former = parse(
        sys.argv[1:] if argv is None else argv, groups, description=description
    )
    notes = modernise(training, former, old)
    return Settings(
        model=ModelArguments(**model),
        data=DataArguments(**data),
        training=training,
        lora=LoraArguments(**adapter) if lora else None,
        notes=notes,
    )


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
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format=_LOG_FORMAT)
    try:
        train(lora=lora)
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0
