"""Announces a worker to a controller by hand.

python3 -m fastchat.serve.register_worker --controller-address URL --worker-name URL
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from fastchat.entry import run_entry


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.register_worker",
        description="Tells a controller of a worker, which it then asks for its models.",
    )
    add = found.add_argument
    add("--controller-address", required=True, help="the controller's URL")
    add("--worker-name", required=True, help="the worker's URL")
    add("--check-heart-beat", action="store_true", help="forget it when its heart-beats cease")
    add("--multimodal", action="store_true", help="it reads images")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Registers the worker."""
    args = parser().parse_args(argv)
    asyncio.run(_register(args))
    print(f"{args.worker_name} is registered at {args.controller_address}.")


async def _register(args: argparse.Namespace) -> None:
    from fastchat.protocol.worker import RegisterWorker
    from fastchat.serve.cluster.connections import Connections
    from fastchat.serve.cluster.controller_client import ControllerClient
    from fastchat.serve.cluster.secrets import controller_token

    message = RegisterWorker(
        worker_name=args.worker_name,
        check_heart_beat=args.check_heart_beat,
        worker_status=None,
        multimodal=args.multimodal,
    )
    async with Connections() as http:
        controller = ControllerClient(
            http, args.controller_address, timeout_s=30, token=controller_token()
        )
        await controller.register(message)


if __name__ == "__main__":
    run_entry(main)
