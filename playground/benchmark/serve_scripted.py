"""The chain without a model, against two bare hops of the same libraries."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from serve_load import Load, load
from serve_processes import bare_chain, echo_workers, our_chain
from serve_report import CHAT, Ways, bodies, in_turn, ratio, row


def scripted(args: argparse.Namespace, log: Path) -> None:
    """Measures all numbers of streams."""
    with bare_chain(log) as bare, our_chain(log, echo_workers(2)) as ours:
        for count in args.streams:
            asked = bodies(count)
            ways: Ways = {
                "bare": partial(_loaded, bare.url + "/16", asked, args.asked),
                "chain": partial(_loaded, ours.url + CHAT, asked, args.asked),
            }
            in_turn(ways, 1)
            runs = in_turn(ways, args.repeats)
            for name, found in runs.items():
                row(f"{name}, {count} streams", found, Load.per_second, "requests/s")
                row("  time to first text", found, Load.median_first_s, "s")
                spread = partial(Load.spread, asked=args.asked)
                row("  spread of the clients' times", found, spread, "(target: at most 0.2)")
            wrong = sum(_wrong(run, args.asked) for run in runs["chain"])
            print(f"  answers out of order or incomplete: {wrong}")
            name = f"requests/s, {count} streams, chain / bare"
            ratio(name, runs["chain"], runs["bare"], Load.per_second, "at least 0.3")
            print()


def _loaded(url: str, bodies: Sequence[dict[str, Any]], times: int) -> Load:
    return asyncio.run(load(url, bodies, times))


def _wrong(run: Load, times: int) -> int:
    return sum(
        answer.text != f"{number // times:06d} tell me".ljust(15)
        for number, answer in enumerate(run.answers)
    )
