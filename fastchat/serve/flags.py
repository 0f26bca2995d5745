"""Flags that several entry points share, and how their values are read.

Imports nothing heavy: a parser is built before anything is loaded.
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
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; a whole number of at least 1 is needed")
    return value


def add_server_flags(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Adds --host, --port and --ssl."""
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=int, default=port, help="port to listen on")
    parser.add_argument(
        "--ssl", action="store_true", help="serve HTTPS; reads SSL_KEYFILE and SSL_CERTFILE"
    )


def add_sampling_flags(parser: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Adds the flags that say how answers are sampled."""
    add = parser.add_argument
    own = "the model's own if unset, or"
    add("--temperature", type=float, help=f"{own} 0.7")
    add("--repetition_penalty", type=float, help=f"{own} 1.0")
    add("--max-new-tokens", type=at_least_one, help=f"{own} {max_new_tokens}")
    add("--debug", action="store_true", help="tell tokens and speed of each answer")
