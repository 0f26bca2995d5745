"""How values of command-line flags are read; for argparse's `type`.

Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import json


def boolean(text: str) -> bool:
    """Reads true or false, in any case."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"is {text!r}; allowed are true and false")
    return values[text.lower()]


def strings(text: str) -> list[str]:
    """Reads a JSON list of strings."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise argparse.ArgumentTypeError(
            f'is {text!r}; a JSON list of strings is needed, such as ["*"]'
        )
    return value


def comma_list(text: str) -> list[str]:
    """Reads names separated by commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def at_least_one(text: str) -> int:
    """Reads a count of at least 1."""
    return _whole_number(text, 1)


def natural(text: str) -> int:
    """Reads a count that may be 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"is {text!r}; a whole number of at least {least} is needed"
        )
    return value
