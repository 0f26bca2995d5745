"""How long a controller with many workers takes to name one, in an open loop.

    python playground/benchmark/controller.py [--workers 1000] [--rate 1500] [--seconds 15] [--json]

A real controller process, registered workers that send signs of life as often as it asks for
them, and questions at random times that were planned before. A time counts from the planned
moment, so that an answer which holds up others counts for all of them. In turns with a server of
the same library that looks at nothing and answers every question with the same bytes: what is
more than its times is the controller's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from controller_load import Dispatches, Fleet, dispatch
from serve_processes import Chain, free_port, start_controller

_TICKS = os.sysconf("SC_CLK_TCK")
_POINTS = (50, 99, 99.9)


def parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--workers", type=int, default=1000)
    found.add_argument("--rate", type=float, default=1500.0, help="questions a second")
    found.add_argument("--seconds", type=float, default=15.0, help="of each run")
    found.add_argument("--connections", type=int, default=128, help="of those who ask")
    found.add_argument("--repeats", type=int, default=1, help="runs of each")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument(
        "--dispatch-method",
        nargs="+",
        default=["shortest_queue", "prefix", "lottery"],
        choices=["shortest_queue", "prefix", "lottery"],
    )
    found.add_argument("--json", action="store_true", help="print JSON in place of text")
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def figures(run: Dispatches, server_cpu_s: float) -> dict[str, float]:
    """The figures of a run."""
    took = {f"p{point:g}, ms": 1e3 * percentile(run.took_s, point) for point in _POINTS}
    return {
        **took,
        "answers/s": len(run.took_s) / run.wall_s,
        "signs of life/s": run.beats / run.wall_s,
        "failed": run.failed + run.beats_lost,
        "server, share of a core": server_cpu_s / run.wall_s,
        "generator, share of a core": run.cpu_s / run.wall_s,
        "generator late, p99, ms": 1e3 * percentile(run.late_s, 99),
        "most asked / mean": max(run.asked.values()) * len(run.asked) / len(run.took_s),
    }


async def _run(args: argparse.Namespace, chain: Chain, seed: int) -> dict[str, float]:
    fleet = Fleet(chain.controller, args.workers, seed)
    await fleet.register()
    await asyncio.sleep(2)
    pid = chain.processes["controller"].pid
    before = cpu_seconds(pid)
    run = await dispatch(
        chain.controller,
        fleet,
        rate=args.rate,
        seconds=args.seconds,
        connections=args.connections,
        seed=seed,
    )
    used = cpu_seconds(pid) - before
    fleet.close()
    return figures(run, used)


def measured(args: argparse.Namespace, kind: str, log: Path, seed: int) -> dict[str, float]:
    """One run against a fresh process: a dispatch method's, or "bare"."""
    with Chain(log) as chain:
        chain.controller = f"http://127.0.0.1:{free_port()}"
        if kind == "bare":
            port = chain.controller.rpartition(":")[2]
            chain.start("controller", [__file__, "bare", port], f"{chain.controller}/health")
        else:
            start_controller(chain, kind)
        return uvloop.run(_run(args, chain, seed))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answers without looking."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    answer = b'{"address":"http://127.1.0.1:21002","alone":false,"exist":true,"next_s":1.0}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Measures each in turn, prints figures and ratios."""
    args = parser().parse_args()
    kinds = ["bare", *args.dispatch_method]
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for kind in kinds:
                runs[kind].append(measured(args, kind, Path(folder), args.seed + repeat))
    middle: dict[str, dict[str, float]] = {
        kind: {name: statistics.median(run[name] for run in of) for name in of[0]}
        for kind, of in runs.items()
    }
    for kind in args.dispatch_method:
        for name in ("p50, ms", "p99, ms"):
            middle[kind][f"{name} / bare"] = middle[kind][name] / middle["bare"][name]
    if args.json:
        print(json.dumps({"workers": args.workers, "rate": args.rate, **middle}, indent=2))
        return
    for kind, found in middle.items():
        print(kind)
        for name, value in found.items():
            print(f"  {name:32}{value:10.3f}")


def _serve_bare(port: int) -> None:
    import uvicorn

    uvicorn.run(bare, host="127.0.0.1", port=port, log_level="warning", backlog=4096)


if __name__ == "__main__":
    import sys

    if sys.argv[1:2] == ["bare"]:
        _serve_bare(int(sys.argv[2]))
    else:
        main()
