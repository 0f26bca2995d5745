"""Reads a DeepSpeed settings file and mends what today's DeepSpeed refuses in it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastchat.errors import SettingsError

_FP16_ONLY = (
    "loss_scale",
    "initial_scale_power",
    "loss_scale_window",
    "hysteresis",
    "min_loss_scale",
)
_GATHER = "stage3_gather_16bit_weights_on_model_save"


def read_deepspeed_config(path: str) -> tuple[dict[str, Any], list[str]]:
    """The settings, mended, and notes on what was changed in them.

    Older guides put the loss-scaling keys of the `fp16` section into `bf16` too, where
    they had no effect and are now an error.

    Args:
        path: a JSON file, or the JSON itself.

    Raises:
        SettingsError: DeepSpeed is not installed, or the file cannot be used.
    """
    if find_spec("deepspeed") is None:
        raise SettingsError(
            "--deepspeed is given, but DeepSpeed is not installed.",
            hint="Install this project with its 'train' extra, or leave --deepspeed out.",
            param="deepspeed",
        )
    return mend(_read(path))


def zero_stage(settings: Any) -> int:
    """The ZeRO stage that DeepSpeed settings ask for; 0 where they ask for none.

    Args:
        settings: the settings; anything but a map counts as none.
    """
    section = settings.get("zero_optimization") if isinstance(settings, dict) else None
    return int(section.get("stage", 0)) if isinstance(section, dict) else 0


def mend(settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings as today's DeepSpeed and this project need them, and notes on changes.

    The `bf16` section loses what belongs into `fp16` only, and ZeRO-3 gathers the weights
    when they are saved.
    """
    notes = []
    section = settings.get("bf16")
    misplaced = [key for key in _FP16_ONLY if isinstance(section, dict) and key in section]
    if misplaced:
        kept = {key: value for key, value in settings["bf16"].items() if key not in misplaced}
        settings = settings | {"bf16": kept}
        notes.append(
            f"DeepSpeed settings: {', '.join(misplaced)} left out of the bf16 section; bfloat16"
            " needs no loss scaling."
        )
    if zero_stage(settings) == 3 and not settings["zero_optimization"].get(_GATHER):
        settings = settings | {"zero_optimization": settings["zero_optimization"] | {_GATHER: True}}
        notes.append(
            f"DeepSpeed settings: {_GATHER} is set; without it ZeRO-3 saves no model that can be"
            " loaded."
        )
    return settings, notes


def _read(path: str) -> dict[str, Any]:
    try:
        text = path if path.lstrip().startswith("{") else Path(path).read_text(encoding="utf-8")
        settings = json.loads(text)
    except OSError as error:
        raise SettingsError(
            f"--deepspeed {path} cannot be read: {error.strerror}.", param="deepspeed"
        ) from None
    except ValueError as error:
        raise SettingsError(
            f"--deepspeed {path} is not valid JSON: {error}.", param="deepspeed"
        ) from None
    if not isinstance(settings, dict):
        raise SettingsError(f"--deepspeed {path} does not hold a JSON object.", param="deepspeed")
    return settings
