"""What a trainer's command line and recipe ask for. Imports neither torch nor transformers."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastchat.errors import SettingsError
from fastchat.train.arguments import DataArguments, LoraArguments, ModelArguments
from fastchat.train.extra_arguments import ExtraTrainingArguments
from fastchat.train.flags import (
    Flag,
    FlagGroup,
    all_values,
    flags_of,
    parse,
    transformers_flags,
)
from fastchat.train.old_flags import OldFlag, modernise, old_flags
from fastchat.train.recipe import read_recipes

_CONFIG = Flag(
    "config",
    str,
    help="A YAML file with any of these flags; the command line wins over it. Of several"
    " --config the later ones win.",
)


@dataclass(slots=True)
class Settings:
    """What a command line asks for.

    Attributes:
        model: which model.
        data: which data, and what of it is learned.
        training: values for `TrainingArguments`, by name; those not given are left out.
        lora: how the adapter looks; None trains all weights.
        extra: what is an entry's own.
        notes: what the user should know of flags that were changed or left out.
    """

    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]
    lora: LoraArguments | None = None
    extra: Any = None
    notes: list[str] = field(default_factory=list)


def parse_settings(
    argv: Sequence[str] | None = None, *, lora: bool = False, extra: type[Any] | None = None
) -> Settings:
    """Reads a trainer's command line (`sys.argv` if None) and the recipes that it names.

    What the command line gives wins over the recipes. Imports no torch.

    Args:
        argv: without the program's name.
        lora: whether the LoRA flags are known.
        extra: a dataclass of flags that are this entry's own.

    Raises:
        SettingsError: an unknown flag, a missing one or a value that cannot be used.
        SystemExit: `--help` was given.
    """
    argv = sys.argv[1:] if argv is None else argv
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
        FlagGroup("this trainer's own", flags_of(extra) if extra else {}),
    ]
    recipe = _read_recipes(argv, groups, lora=lora)
    said = parse(
        argv,
        [*groups, FlagGroup("recipe", {"config": _CONFIG})],
        description="Fine-tunes a Yuan2 model" + (" with LoRA." if lora else "."),
        given=recipe,
    )
    written = [{name: recipe[name] for name in group.flags if name in recipe} for group in groups]
    training, notes = _training(written[3:5], said[3:5], old)
    return Settings(
        model=ModelArguments(**(written[0] | said[0])),
        data=DataArguments(**(written[1] | said[1])),
        training=training,
        lora=LoraArguments(**(written[2] | said[2])) if lora else None,
        extra=extra(**(written[5] | said[5])) if extra else None,
        notes=notes,
    )


def _read_recipes(
    argv: Sequence[str], groups: Sequence[FlagGroup], *, lora: bool
) -> dict[str, Any]:
    flags = {name: flag for group in groups for name, flag in group.flags.items()}
    elsewhere = {} if lora else dict.fromkeys(flags_of(LoraArguments), "train_lora.py")
    return read_recipes(all_values("config", argv), flags, elsewhere)


def _training(
    written: Sequence[dict[str, Any]],
    said: Sequence[dict[str, Any]],
    old: Mapping[str, OldFlag],
) -> tuple[dict[str, Any], list[str]]:
    """Training values of recipe and command line together, and notes on old names.

    Old names are carried over in each of the two before they meet, so that the command
    line wins whichever name it uses.

    Args:
        written: the recipe's values under today's names, and under old ones.
        said: the command line's, likewise.
        old: the old flags.
    """
    (values, former), (more, more_former) = written, said
    explicit = frozenset(more)
    notes = modernise(values, former, old) + modernise(more, more_former, old)
    for name in more.keys() - explicit:
        if isinstance(more[name], dict):  # the flag said one part of a map
            more[name] = _map(values.get(name)) | more[name]
    together = values | more
    _check(together)
    return together, list(dict.fromkeys(notes))


_FROM = {
    "gradient_accumulation_steps": 1,
    "model_max_length": 1,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "sample_generations": 0,
}
"""Whole numbers, each with the least that means something."""


def _check(training: Mapping[str, Any]) -> None:
    """Refuses values that mean nothing, where transformers would fail only later."""
    for name, least in _FROM.items():
        if training.get(name, least) < least:
            raise SettingsError(
                f"--{name} is {training[name]}; a whole number from {least} on is needed.",
                param=name,
            )
    rate = training.get("learning_rate", 0.0)
    if not (math.isfinite(rate) and rate >= 0):
        raise SettingsError(
            f"--learning_rate is {rate}; a number from 0 on is needed.",
            hint="2e-5 is usual for all weights, 1e-4 to 2e-4 for LoRA.",
            param="learning_rate",
        )
    if not training.get("peak_tflops", 1) > 0:
        raise SettingsError(
            f"--peak_tflops is {training['peak_tflops']}; a rate above 0 is needed.",
            param="peak_tflops",
        )


def _map(value: Any) -> dict[str, Any]:
    """A map that may be written as JSON; empty for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json.loads(value)
    return value if isinstance(value, dict) else {}
