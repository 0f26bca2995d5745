"""A worker's entry: parses flags, loads the model, then serves `worker.app`.

python3 -m fastchat.serve.model_worker --model-path PATH
"""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastchat.flag_types import at_least_one, boolean, comma_list
from fastchat.model_flags import add_model_args, check_model_args
from fastchat.serve.cluster.secrets import controller_token
from fastchat.serve.flags import add_server_flags
from fastchat.serve.model_loading import load_model, model_names
from fastchat.serve.running import EVERYWHERE, TlsFiles, address_of, bind, run_app, run_entry

if TYPE_CHECKING:
    from fastchat.serve.worker.app import WorkerSettings

PORT = 21002
CONTROLLER_ADDRESS = "http://localhost:21001"


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a worker serves, whatever its engine."""
    add = parser.add_argument
    add_server_flags(parser, port=PORT)
    add("--worker-address", help="URL under which others reach this worker; from host and port")
    add("--controller-address", default=CONTROLLER_ADDRESS)
    add("--model-names", type=comma_list, help="names to serve the model under, with commas")
    add("--conv-template", help="conversation template; the model's own if unset")
    add(
        "--limit-worker-concurrency",
        type=at_least_one,
        help="requests handed to the engine at once; as many as it takes if unset",
    )
    add(
        "--queue-limit",
        type=at_least_one,
        default=512,
        help="requests in line at most; further ones are refused with 429",
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


def parser() -> argparse.ArgumentParser:
    """The worker's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.model_worker",
        description="Serves one model, and tells a controller of it.",
    )
    add_worker_flags(found)
    add_model_args(found)
    return found


def worker_settings(args: argparse.Namespace, port: int) -> WorkerSettings:
    """The settings that the flags describe; `port` is the bound one, should --port be 0."""
    from fastchat.serve.worker.app import WorkerSettings

    return WorkerSettings(
        model_names=model_names(args.model_path, args.model_names),
        worker_address=args.worker_address or address_of(args.host, port, tls=args.ssl),
        controller_address=None if args.no_register else args.controller_address,
        controller_token=controller_token(),
        limit_worker_concurrency=args.limit_worker_concurrency,
        queue_limit=args.queue_limit,
        drain_s=args.drain_seconds,
        stream_interval=args.stream_interval,
        embed_in_truncate=args.embed_in_truncate,
    )


def _warn_of_address(logger: logging.Logger, args: argparse.Namespace) -> None:
    given = args.worker_address
    host = args.host if given is None else urlsplit(given).hostname
    if host not in EVERYWHERE:
        return
    logger.warning(
        "The worker registers as %s, which other machines cannot reach;"
        " for those give --worker-address.",
        given or "localhost",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a worker until it is stopped."""
    args = parser().parse_args(argv)
    check_model_args(args)
    tls = TlsFiles.from_environment() if args.ssl else None
    sockets = bind(args.host, args.port)

    from fastchat.serve.worker.app import create_worker_app
    from fastchat.utils import build_logger

    name = secrets.token_hex(4)
    logger = build_logger("model_worker", f"model_worker_{name}.log")
    logging.getLogger("fastchat").setLevel(logging.DEBUG if args.debug else logging.INFO)
    logger.info("args: %s", args)
    if not args.no_register:
        _warn_of_address(logger, args)
    settings = worker_settings(args, sockets[0].getsockname()[1])
    logger.info("Loading the model %s from %s", settings.model_names, args.model_path)
    served = load_model(args, conv_template=args.conv_template)
    run_app(create_worker_app(served, settings), sockets, args.host, tls)


if __name__ == "__main__":
    run_entry(main)
