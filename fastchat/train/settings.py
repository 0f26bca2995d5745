"""What a trainer's command line asks for. Parses it; imports neither torch nor transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastchat.train.arguments import DataArguments, LoraArguments, ModelArguments
from fastchat.train.extra_arguments import ExtraTrainingArguments
from fastchat.train.flags import FlagGroup, flags_of, parse, transformers_flags
from fastchat.train.old_flags import modernise, old_flags


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
