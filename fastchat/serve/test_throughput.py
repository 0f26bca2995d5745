"""How fast a worker answers when several ask at once.

python3 -m fastchat.serve.test_throughput --model-name yuan2 --n-thread 8
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastchat.constants import CONTROLLER_ADDRESS
from fastchat.entry import run_entry
from fastchat.flag_types import at_least_one

if TYPE_CHECKING:
    from fastchat.serve.cluster.worker_client import WorkerClient

_MESSAGE = "Tell me a story with more than 1000 words."


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer: seconds to its first text and to its end, and its tokens."""

    first_s: float
    whole_s: float
    tokens: int


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.test_throughput",
        description="Asks for several answers at once, and tells how fast they came.",
    )
    add = found.add_argument
    add("--controller-address", default=CONTROLLER_ADDRESS)
    add("--worker-address", help="ask this worker; one of the controller's if unset")
    add("--model-name", default="vicuna")
    add("--max-new-tokens", type=at_least_one, default=2048)
    add("--n-thread", type=at_least_one, default=8, help="answers at once")
    add("--test-dispatch", action="store_true", help="let the controller choose for each answer")
    return found


def report(timings: Sequence[Timing], wall_s: float) -> str:
    """The lines that are printed."""
    tokens = sum(timing.tokens for timing in timings)
    lines = [f"answers: {len(timings)}", f"tokens: {tokens}", f"seconds: {wall_s:.2f}"]
    lines.append(f"tokens per second: {tokens / wall_s:.1f}")
    named = (("first text", "first_s"), ("whole answer", "whole_s"))
    for what, name in named:
        values = [getattr(timing, name) for timing in timings]
        cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else []
        shown = [statistics.median(values), *(cuts[place - 1] for place in (95, 99) if cuts)]
        told = " / ".join(f"{value:.3f}" for value in shown)
        lines.append(f"{what}, seconds, median{' / 95 % / 99 %' if cuts else ''}: {told}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Asks, and prints the report."""
    asyncio.run(_measure(parser().parse_args(argv)))


async def _measure(args: argparse.Namespace) -> None:
    from fastchat.serve.cluster.connections import Connections
    from fastchat.serve.cluster.controller_client import ControllerClient
    from fastchat.serve.cluster.worker_client import WorkerClient

    async with Connections() as http:
        controller = ControllerClient(http, args.controller_address)

        async def worker() -> WorkerClient:
            address = args.worker_address or await controller.serving(args.model_name)
            return WorkerClient(http, address)

        one = await worker()
        chosen = [await worker() if args.test_dispatch else one for _ in range(args.n_thread)]
        for address in sorted({each.address for each in chosen}):
            print(f"worker: {address}")
        began = time.monotonic()
        timings = await asyncio.gather(*(_timed(each, args) for each in chosen))
        print(report(timings, time.monotonic() - began))


async def _timed(worker: WorkerClient, args: argparse.Namespace) -> Timing:
    params = {
        "model": args.model_name,
        "messages": [{"role": "user", "content": _MESSAGE}],
        "prompt": _MESSAGE,
        "temperature": 0.0,
        "max_new_tokens": args.max_new_tokens,
        "unset": ["max_new_tokens"],
        "echo": False,
    }
    began, first, tokens = time.monotonic(), 0.0, 0
    async with aclosing(worker.generate_stream(params)) as chunks:
        async for chunk in chunks:
            if chunk["text"] and not first:
                first = time.monotonic() - began
            usage = chunk.get("usage")
            tokens = usage["completion_tokens"] if usage else tokens
    whole = time.monotonic() - began
    return Timing(first or whole, whole, tokens)


if __name__ == "__main__":
    run_entry(main)
