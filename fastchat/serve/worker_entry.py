"""What the entries of all workers have in common: flags, address, log, server.

Imports nothing heavy until a worker is served.
"""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastchat.constants import CONTROLLER_ADDRESS
from fastchat.flag_types import at_least_one, boolean
from fastchat.serve.cluster.secrets import controller_token
from fastchat.serve.flags import add_server_flags
from fastchat.serve.running import EVERYWHERE, TlsFiles, address_of, bind, run_app
from fastchat.serve.tracing import trace_to

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fastchat.serve.worker.app import WorkerSettings
    from fastchat.serve.worker.settings import ServedAdapter

PORT = 21002
QUEUE_LIMIT = 512
"""Requests in line at most, for workers whose engine has no line of its own."""


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a worker serves, whatever its engine."""
    add = parser.add_argument
    add_server_flags(parser, port=PORT)
    add("--worker-address", help="URL under which others reach this worker; from host and port")
    add("--controller-address", default=CONTROLLER_ADDRESS)
    add(
        "--limit-worker-concurrency",
        type=at_least_one,
        help="requests handed to the engine at once; as many as it takes if unset",
    )
    add(
        "--drain-seconds",
        type=at_least_one,
        default=60,
        help="on TERM, what runs may take so long to finish",
    )
    add("--stream-interval", type=at_least_one, default=2, help="tokens between two chunks")
    add("--no-register", action="store_true", help="do not tell a controller")
    add("--seed", type=int, help="seed of every request that brings none")
    add(
        "--embed-in-truncate",
        action="store_true",
        help="cut long embedding inputs at the context length",
    )
    add("--debug", nargs="?", type=boolean, const=True, default=False, help="log more")


def settings_of(
    args: argparse.Namespace,
    port: int,
    names: list[str],
    adapters: Mapping[str, ServedAdapter] | None = None,
) -> WorkerSettings:
    """The settings that the flags describe.

    Args:
        args: parsed flags.
        port: the bound one, should --port be 0.
        names: of the models that are served.
        adapters: beside them.
    """
    from fastchat.serve.worker.app import WorkerSettings

    return WorkerSettings(
        model_names=names,
        worker_address=args.worker_address or address_of(args.host, port, tls=args.ssl),
        controller_address=None if args.no_register else args.controller_address,
        controller_token=controller_token(),
        limit_worker_concurrency=args.limit_worker_concurrency,
        queue_limit=vars(args).get("max_waiting", QUEUE_LIMIT),
        drain_s=args.drain_seconds,
        stream_interval=args.stream_interval,
        embed_in_truncate=args.embed_in_truncate,
        adapters=adapters or {},
    )


def warn_of_address(logger: logging.Logger, args: argparse.Namespace) -> None:
    """Tells that an address cannot be reached from other machines, if that is so."""
    given = args.worker_address
    host = args.host if given is None else urlsplit(given).hostname
    if host not in EVERYWHERE:
        return
    logger.warning(
        "The worker registers as %s, which other machines cannot reach;"
        " for those give --worker-address.",
        given or "localhost",
    )


def serve_worker(args: argparse.Namespace, make_app: Callable[[int], FastAPI]) -> None:
    """Runs a worker until it is stopped.

    Args:
        args: parsed flags.
        make_app: loads what is to be served, which may take minutes, and gets the bound port.
    """
    trace_to(args.otlp_endpoint, "fastchat-worker")
    tls = TlsFiles.from_environment() if args.ssl else None
    sockets = bind(args.host, args.port)

    from fastchat.utils import build_logger

    logger = build_logger("model_worker", f"model_worker_{secrets.token_hex(4)}.log")
    logging.getLogger("fastchat").setLevel(logging.DEBUG if args.debug else logging.INFO)
    logger.info("args: %s", args)
    if not args.no_register:
        warn_of_address(logger, args)
    run_app(make_app(sockets[0].getsockname()[1]), sockets, args.host, tls)
