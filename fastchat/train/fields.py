"""Dataclass fields that are flags: a default and the text that `--help` shows."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def flag_field(text: str, default: Any = None) -> Any:
    """A field with a default, described for `--help`."""
    return field(default=default, metadata={"help": text})
