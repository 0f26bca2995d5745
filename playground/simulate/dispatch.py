"""A thousand workers and their users in simulated time, under the controller's ways of dispatching.

    python playground/simulate/dispatch.py [--workers 1000] [--minutes 3] [--json]

Asks the controller's own code, `fastchat.serve.cluster`, for every request; workers and users are
models (`worker_model.py`, `users.py`). Every way meets the same users. Deterministic: a seed gives
the same figures again. Prints, for each way, the time to first token, the share of prompt tokens
found in caches, beside what one cache without end would find, and how evenly the load lies.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace

from fleet import Changes, Fleet, Outcome
from users import Habits, conversations
from worker_model import Rates

METHODS = ("lottery", "shortest_queue", "prefix")


def parser() -> argparse.ArgumentParser:
    """The simulation's flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = found.add_argument
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    add("--workers", type=int, default=1000)
    add("--per-minute", type=float, default=100_000.0, help="requests of all users")
    add("--minutes", type=float, default=2.0, help="that are measured, in simulated time")
    add("--warm-minutes", type=float, default=1.0, help="before that")
    add("--seed", type=int, default=0)
    rates = found.add_argument_group("a worker")
    # As rates.py measured them: a Yuan2 of 8 layers and width 512, bfloat16, two cores.
    rates.add_argument("--step-ms", type=float, default=23.5, help="of any step")
    rates.add_argument("--row-ms", type=float, default=3.35, help="for each that is generating")
    rates.add_argument("--token-ms", type=float, default=1.1, help="for each token of a prompt")
    rates.add_argument("--faster", type=float, default=8.0, help="divides all three")
    rates.add_argument("--room", type=int, default=100_000, help="tokens of its cache")
    changes = found.add_argument_group("workers that come and go, each minute")
    changes.add_argument("--join", type=float, default=0.0)
    changes.add_argument("--leave", type=float, default=0.0)
    changes.add_argument("--die", type=float, default=0.0)
    users = found.add_argument_group("users")
    users.add_argument("--turns", type=float, default=Habits().turns)
    users.add_argument("--systems", type=int, default=Habits().systems)
    add("--jobs", type=int, default=2, help="processes")
    add("--json", action="store_true", help="print JSON in place of text")
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def _uneven(values: Sequence[float]) -> float:
    return max(values) / statistics.fmean(values)


def figures(found: Outcome, minutes: float) -> dict[str, float]:
    """The figures of one way."""
    return {
        "requests": len(found.first_s),
        "requests/minute": len(found.first_s) / minutes,
        "first token p50, s": percentile(found.first_s, 50),
        "first token p99, s": percentile(found.first_s, 99),
        "prompt tokens, mean": found.prompt / len(found.first_s),
        "hits / prompt tokens": found.hit / found.prompt,
        "hits / oracle's": found.hit / found.possible,
        "load max / mean": _uneven(found.loads),
        "work max / mean": _uneven(found.busy),
        "requests max / mean": _uneven(found.asked),
        "load mean": statistics.fmean(found.loads),
        "busy mean": statistics.fmean(found.busy),
        "lost": found.lost,
        "asked again": found.retried,
    }


def simulate(args: argparse.Namespace, method: str) -> dict[str, float]:
    """One way of dispatching."""
    seconds = 60 * (args.warm_minutes + args.minutes)
    habits = replace(Habits(), per_minute=args.per_minute, turns=args.turns, systems=args.systems)
    step_s, row_s, token_s = (
        each / 1e3 / args.faster for each in (args.step_ms, args.row_ms, args.token_ms)
    )
    rates = Rates(step_s, row_s, token_s, room=args.room)
    fleet = Fleet(
        method,
        args.workers,
        rates,
        warm_s=60 * args.warm_minutes,
        seconds=seconds,
        changes=Changes(args.join, args.leave, args.die),
        seed=args.seed,
    )
    found = fleet.run(conversations(habits, seconds, args.seed))
    return figures(found, args.minutes)


def main() -> None:
    """Simulates each way and prints it."""
    args = parser().parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = {method: pool.submit(simulate, args, method) for method in args.methods}
        found = {method: future.result() for method, future in futures.items()}
    if {"prefix", "shortest_queue"} <= found.keys():
        ours, theirs = found["prefix"], found["shortest_queue"]
        for name in ("first token p50, s", "first token p99, s"):
            ours[f"{name} / shortest_queue"] = ours[name] / theirs[name]
    if args.json:
        print(json.dumps({"users": asdict(Habits()), "flags": vars(args), **found}, indent=2))
        return
    for method, values in found.items():
        print(method)
        for name, value in values.items():
            print(f"  {name:40}{value:12.3f}")


if __name__ == "__main__":
    main()
