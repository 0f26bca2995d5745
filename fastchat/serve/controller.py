"""The controller's entry: parses flags, then serves `cluster.app`.

python3 -m fastchat.serve.controller --host 0.0.0.0
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

from fastchat.entry import run_entry
from fastchat.serve.flags import add_server_flags
from fastchat.serve.running import EVERYWHERE, TlsFiles, bind, run_app
from fastchat.serve.tracing import trace_to

PORT = 21001


def parser() -> argparse.ArgumentParser:
    """The controller's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.controller",
        description="Knows which workers serve which models, and whom to ask next.",
    )
    add_server_flags(found, port=PORT)
    found.add_argument(
        "--dispatch-method",
        choices=("lottery", "prefix", "shortest_queue"),
        default="shortest_queue",
        help="how a worker is chosen; prefix sends a conversation where it was before",
    )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a controller until it is stopped."""
    args = parser().parse_args(argv)
    trace_to(args.otlp_endpoint, "fastchat-controller")
    tls = TlsFiles.from_environment() if args.ssl else None
    sockets = bind(args.host, args.port)

    from fastchat.serve.cluster import secrets
    from fastchat.serve.cluster.app import ControllerSettings, create_controller_app
    from fastchat.utils import build_logger

    logger = build_logger("controller", "controller.log")
    logger.info("args: %s", args)
    settings = ControllerSettings(dispatch_method=args.dispatch_method)
    if args.host in EVERYWHERE and not settings.token:
        logger.warning(
            "Whoever reaches this port may register workers; set %s for the controller and its"
            " workers.",
            secrets.VARIABLE,
        )
    app = create_controller_app(settings)
    # What is loaded by now stays; looking for garbage in it would make requests wait.
    gc.freeze()
    # Every worker is heard every second: lines of that would hide all others.
    run_app(app, sockets, args.host, tls, access_log=False)


if __name__ == "__main__":
    run_entry(main)
