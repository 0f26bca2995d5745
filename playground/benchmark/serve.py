"""How fast the whole chain serves, over HTTP, against what it could be and what FastChat is.

    python playground/benchmark/serve.py scripted --streams 500
    python playground/benchmark/serve.py engine --model FOLDER --peer-python PATH --peer-model F

`scripted` takes the model out: sixteen tokens a request from an engine that only counts, two
workers, against two bare hops of the same libraries. `engine` serves a model, against the same
engine inside this process and, where its Python is named, FastChat from PyPI with a model of the
same shape. Everything runs in turn, in one run; ratios count, not times. Prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serve_load import Load, load
from serve_processes import (
    Chain,
    bare_chain,
    echo_workers,
    free_port,
    our_chain,
)

_PATH = "/v1/chat/completions"


def parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = found.add_subparsers(dest="part", required=True)
    scripted = parts.add_parser("scripted", help="the chain without a model")
    engine = parts.add_parser("engine", help="the chain with a model")
    for part in (scripted, engine):
        part.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
        part.add_argument("--repeats", type=int, default=5)
    engine.add_argument("--model", required=True, help="a Yuan2 folder")
    engine.add_argument("--tokens", type=int, default=64)
    engine.add_argument("--dtype", default="bfloat16")
    engine.add_argument("--peer-python", help="of an environment with FastChat from PyPI")
    engine.add_argument("--peer-model", help="a folder that FastChat serves")
    engine.add_argument("--peer-limit", type=int, nargs="+", default=[5, 64])
    return found


def bodies(count: int, **more: Any) -> list[dict[str, Any]]:
    """Requests that differ, so that nobody answers one from the memory of another."""
    return [
        {
            "model": "echo",
            "messages": [{"role": "user", "content": f"{number:06d} tell me more of it"}],
            "stream": True,
            "temperature": 0,
            **more,
        }
        for number in range(count)
    ]


def measured(url: str, count: int, repeats: int, **more: Any) -> list[Load]:
    """Several runs of so many streams; the first one, which warms up, is left out."""
    runs = [asyncio.run(load([url], bodies(count, **more))) for _ in range(repeats + 1)]
    return runs[1:]


def row(name: str, runs: Sequence[Load], value: Callable[[Load], float], unit: str) -> float:
    """Prints the median of a value over runs, with its range; returns the median."""
    values = sorted(value(run) for run in runs)
    lost = sum(len(run.answers) - len(run.complete) for run in runs)
    middle = statistics.median(values)
    told = f"{name:<44}{middle:>12.3f} {unit} ({values[0]:.3f} to {values[-1]:.3f})"
    print(told + (f"  LOST {lost}" if lost else ""), flush=True)
    return middle


def scripted(args: argparse.Namespace, log: Path) -> None:
    """The chain without a model against two bare hops."""
    for count in args.streams:
        rates = {}
        with bare_chain(log) as chain:
            runs = measured(chain.url + "/", count, args.repeats)
            rates["bare"] = row(f"bare, {count} streams", runs, Load.per_second, "requests/s")
        with our_chain(log, echo_workers(2)) as chain:
            runs = measured(chain.url + _PATH, count, args.repeats)
            rates["ours"] = row(f"chain, {count} streams", runs, Load.per_second, "requests/s")
            row("  time to first text", runs, Load.median_first_s, "s")
            row("  slowest 1 % over the median", runs, Load.fairness, "")
            wrong = sum(
                answer.text != f"{number:06d} tell me".ljust(15)
                for run in runs
                for number, answer in enumerate(run.answers)
            )
            print(f"  answers out of order or incomplete: {wrong}")
        print(f"  chain / bare: {rates['ours'] / rates['bare']:.2f}\n")


def engine(args: argparse.Namespace, log: Path) -> None:
    """The chain with a model, the engine alone, and FastChat."""
    more = {"max_tokens": args.tokens, "model": "yuan2", "ignore_eos": True}
    worker = ["-m", "fastchat.serve.model_worker", "--model-path", args.model, "--dtype"]
    worker += [args.dtype, "--model-names", "yuan2", "--host", "127.0.0.1"]
    rates: dict[int, dict[str, float]] = {count: {} for count in args.streams}
    with our_chain(log, [[__file__, "worker", *worker]]) as chain:
        for count in args.streams:
            runs = measured(chain.url + _PATH, count, args.repeats, **more)
            rates[count]["ours"] = _told("chain", runs, count, args.tokens)
        one = measured(chain.url + _PATH, 1, args.repeats, **{**more, "max_tokens": 1})
        row("chain, one token", one, lambda run: run.answers[0].whole_s, "s")
    for count in args.streams:
        runs = _in_process(args, count)
        rates[count]["alone"] = _told("engine alone", runs, count, args.tokens)
    if args.peer_python:
        for limit in args.peer_limit:
            with _peer(args, log, limit) as chain:
                peer = {"max_tokens": args.tokens, "model": "peer"}
                for count in args.streams:
                    runs = measured(chain.url + _PATH, count, args.repeats, **peer)
                    name = f"FastChat, limit {limit}"
                    rates[count][name] = _told(name, runs, count, args.tokens)
    for count, found in rates.items():
        for name in found.keys() - {"ours"}:
            print(f"{count} streams, chain / {name}: {found['ours'] / found[name]:.2f}")


def _told(name: str, runs: Sequence[Load], count: int, tokens: int) -> float:
    rate = row(f"{name}, {count} streams", runs, lambda run: run.per_second() * tokens, "tokens/s")
    row("  time to first text", runs, Load.median_first_s, "s")
    return rate


def _in_process(args: argparse.Namespace, count: int) -> list[Load]:
    from serve_alone import loads

    return loads(args.model, args.dtype, count, args.tokens, args.repeats)


def _peer(args: argparse.Namespace, log: Path, limit: int) -> Chain:
    chain = Chain(log)
    ports = [str(free_port()) for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    host = ["--host", "127.0.0.1", "--port"]
    start = chain.start
    python = args.peer_python
    start(
        "peer-controller",
        ["-m", "fastchat.serve.controller", *host, ports[0]],
        f"{urls[0]}/test_connection",
        python=python,
    )
    model = ["--model-path", args.peer_model, "--model-names", "peer", "--device", "cpu"]
    address = ["--controller-address", urls[0], "--worker-address", urls[1]]
    several = ["--limit-worker-concurrency", str(limit)]
    worker = ["-m", "fastchat.serve.model_worker", *host, ports[1], *model, *address, *several]
    start("peer-worker", worker, f"{urls[1]}/docs", python=python)
    api = ["-m", "fastchat.serve.openai_api_server", *host, ports[2]]
    start("peer-api", [*api, "--controller-address", urls[0]], f"{urls[2]}/docs", python=python)
    chain.url = urls[2]
    return chain


def _run_worker(command: Sequence[str]) -> None:
    """Runs a worker whose port and controller come last, as `our_chain` gives them."""
    *flags, port, controller = command
    import runpy

    sys.argv = [flags[1], *flags[2:], "--port", port, "--controller-address", controller]
    runpy.run_module(flags[1], run_name="__main__")


def main() -> None:
    """Measures one part."""
    if sys.argv[1:2] == ["worker"]:
        _run_worker(sys.argv[2:])
        return
    args = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"scripted": scripted, "engine": engine}[args.part](args, Path(folder))


if __name__ == "__main__":
    main()
