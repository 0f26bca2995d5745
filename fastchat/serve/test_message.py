"""Sends one message to a worker and prints the answer as it comes.

python3 -m fastchat.serve.test_message --model-name yuan2
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from fastchat.constants import CONTROLLER_ADDRESS
from fastchat.entry import run_entry


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.test_message",
        description="Asks a worker for one answer, past the API server.",
    )
    add = found.add_argument
    add("--controller-address", default=CONTROLLER_ADDRESS)
    add("--worker-address", help="ask this worker; one of the controller's if unset")
    add("--model-name", required=True)
    add("--temperature", type=float, default=0.0)
    add("--max-new-tokens", type=int, default=32)
    add("--message", default="Tell me a story with more than 1000 words.")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints question and answer."""
    asyncio.run(_ask(parser().parse_args(argv)))


async def _ask(args: argparse.Namespace) -> None:
    from fastchat.serve.cluster.connections import Connections
    from fastchat.serve.cluster.controller_client import ControllerClient
    from fastchat.serve.cluster.worker_client import WorkerClient

    async with Connections() as http:
        controller = ControllerClient(http, args.controller_address)
        address = args.worker_address or await controller.serving(args.model_name)
        params = {
            "model": args.model_name,
            "messages": [{"role": "user", "content": args.message}],
            "temperature": args.temperature,
            "max_new_tokens": args.max_new_tokens,
            "echo": False,
        }
        print(f"user: {args.message}\nassistant: ", end="", flush=True)
        told = 0
        async with aclosing(WorkerClient(http, address).generate_stream(params)) as chunks:
            async for chunk in chunks:
                print(chunk["text"][told:], end="", flush=True)
                told = len(chunk["text"])
        print()


if __name__ == "__main__":
    run_entry(main)
