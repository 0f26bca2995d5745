"""Flags that several entry points share.

Imports nothing heavy: a parser is built before anything is loaded.
"""

from __future__ import annotations

import argparse

from fastchat.flag_types import at_least_one


def add_server_flags(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Adds --host, --port, --ssl and --otlp-endpoint."""
    parser.add_argument("--host", default="localhost", help="address to listen on")
    parser.add_argument("--port", type=int, default=port, help="port to listen on")
    parser.add_argument(
        "--ssl", action="store_true", help="serve HTTPS; reads SSL_KEYFILE and SSL_CERTFILE"
    )
    parser.add_argument(
        "--otlp-endpoint", help="URL of an OpenTelemetry collector (HTTP) that is sent traces"
    )


def add_sampling_flags(parser: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Adds the flags that say how answers are sampled."""
    add = parser.add_argument
    own = "the model's own if unset, or"
    add("--temperature", type=float, help=f"{own} 0.7")
    add("--repetition_penalty", type=float, help=f"{own} 1.0")
    add("--max-new-tokens", type=at_least_one, help=f"{own} {max_new_tokens}")
    add("--debug", action="store_true", help="tell tokens and speed of each answer")
