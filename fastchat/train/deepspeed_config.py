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


def read_deepspeed_config(path: str) -> tuple[dict[str, Any], list[str]]:
    """The settings, and notes on what was left out of them.

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


def mend(settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Leaves out of the `bf16` section what belongs into `fp16` only."""
    section = settings.get("bf16")
    misplaced = [key for key in _FP16_ONLY if isinstance(section, dict) and key in section]
    if not misplaced:
        return settings, []
    kept = {key: value for key, value in settings["bf16"].items() if key not in misplaced}
    note = (
        f"DeepSpeed settings: {', '.join(misplaced)} left out of the bf16 section; bfloat16"
        " needs no loss scaling."
    )
    return settings | {"bf16": kept}, [note]


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
