"""How much faster this project trains than upstream's way, measured side by side.

    python playground/benchmark/train.py [--geometry T M] [--data single 8 16] [--json FILE]

Upstream's way is reproduced on the very same network: one sample a row, every row padded
to 1024 tokens, logits of every token, batches of 4, and k full rows of a k-turn
conversation. Ours takes --batch conversations, in one row without padding, with their
histories shared and logits of learned tokens only. Both compute a forward and a backward
pass in float32. `packed` lays ours out without sharing histories.

The ways take turns, so that a busy machine slows all of them. Rates are learned tokens a
second of wall time, ratios the medians of the rounds' ratios with their range; CPU seconds
are counted beside them. MFU takes the useful operations (real tokens, learned logits,
attention pairs that are looked at) against the best rate of float32 products here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from training_data import Conversations, multi_turn, single_turn

from fastchat.data.rows import Row
from fastchat.data.tree import Tree, merge
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.cpu_matmul import use_fastest_float32
from fastchat.train.batch_counts import count
from fastchat.train.batching import ForestCollator, RowCollator
from fastchat.train.report.flops import useful_flops

LENGTH = 1024
BATCH = 4
GEOMETRIES = {"T": (256, 4, 4), "M": (1024, 8, 16)}
DATA: dict[str, Callable[[], Conversations]] = {
    "single": lambda: single_turn(1000),
    "8": lambda: multi_turn(125, 8, mean=55),
    "16": lambda: multi_turn(60, 16, mean=28),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One measured forward and backward pass."""

    learned: float
    wall_s: float
    cpu_s: float
    flops: float = 0.0

    @property
    def rate(self) -> float:
        """Learned tokens a second."""
        return self.learned / self.wall_s

    @property
    def cpu_rate(self) -> float:
        """Learned tokens a CPU second."""
        return self.learned / self.cpu_s


def network(geometry: str, length: int = LENGTH) -> YuanForCausalLM:
    """Random weights: F = 4 H, vocabulary 135040, tied output matrix."""
    hidden, layers, heads = GEOMETRIES[geometry]
    torch.manual_seed(0)
    config = YuanConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    return YuanForCausalLM(config).train()


def timed(model: YuanForCausalLM, batch: dict[str, Any], learned: float) -> Step:
    """Runs a batch forward and backward."""
    counted = count(batch)
    inputs = {name: value for name, value in batch.items() if name != "item_ids"}
    model.zero_grad(set_to_none=True)
    wall, cpu = time.perf_counter(), time.process_time()
    model(**inputs).loss.backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    flops = useful_flops(
        model.config.to_dict(), counted.tokens, counted.learned, counted.attention_pairs
    )
    return Step(learned, wall, cpu, flops)


def padded(rows: Sequence[Row]) -> dict[str, Any]:
    """Upstream's batch: rows as they are, padded to the limit."""
    batch = RowCollator(pad_id=0)([merge([row]) for row in rows])
    short = LENGTH - batch["input_ids"].shape[1]
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    for name, value in fill.items():
        batch[name] = torch.nn.functional.pad(batch[name], (0, short), value=value)
    return batch


def batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Batches without end."""
    endless = itertools.cycle(items)
    while True:
        yield list(itertools.islice(endless, size))


def compare(
    geometry: str, data: Conversations, rounds: int, steps: int, size: int
) -> dict[str, Any]:
    """Rounds of upstream's step and `steps` of each of ours, in turns."""
    model = network(geometry)
    flat = ForestCollator()
    rows = batches([row for rows in data.items for row in rows], BATCH)
    trees = batches(data.trees(), size)
    chains = batches([[merge([row]) for row in rows] for rows in data.items], size)
    several = len(data.items[0]) > 1
    taken: dict[str, list[Step]] = {"upstream": [], "ours": []} | (
        {"packed": []} if several else {}
    )
    for number in range(rounds + 1):
        # A padded row costs the same whatever it holds, so it is booked with the mean.
        first = padded(next(rows))
        found = {"upstream": timed(model, first, BATCH * data.learned_a_row)}
        found["ours"] = _total(
            timed(model, flat(b), _learned(b)) for b in itertools.islice(trees, steps)
        )
        if several:
            lists = [[tree for item in b for tree in item] for b in itertools.islice(chains, steps)]
            found["packed"] = _total(timed(model, flat(b), _learned(b)) for b in lists)
        if number:  # the first round warms up
            for way, step in found.items():
                taken[way].append(step)
    return taken


def _learned(trees: Sequence[Tree]) -> float:
    return sum(tree.learned_tokens for tree in trees)


def _total(steps: Iterator[Step]) -> Step:
    parts = list(steps)
    return Step(
        *(sum(getattr(p, f) for p in parts) for f in ("learned", "wall_s", "cpu_s", "flops"))
    )


def peak_flops(model_rows: int = 1024) -> float:
    """The best rate of float32 products here, in FLOP/s."""
    left, right = torch.randn(model_rows, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * model_rows * 2048 * 2048 / best


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(taken: dict[str, list[Step]], peak: float) -> dict[str, Any]:
    """Rates, ratios and MFU of the ways that were measured."""
    result: dict[str, Any] = {}
    for way, steps in taken.items():
        result[way] = {
            "learned_tokens_per_second": spread([step.rate for step in steps]),
            "learned_tokens_per_cpu_second": spread([step.cpu_rate for step in steps]),
        }
    for other in taken.keys() - {"ours"}:
        pairs = list(zip(taken["ours"], taken[other], strict=True))
        result[f"ours / {other}"] = spread([a.rate / b.rate for a, b in pairs])
        result[f"ours / {other}, CPU"] = spread([a.cpu_rate / b.cpu_rate for a, b in pairs])
    result["MFU"] = spread([step.flops / step.wall_s / peak for step in taken["ours"]])
    return result


def main() -> None:
    """Prints a table; writes JSON where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--geometry", nargs="+", choices=GEOMETRIES, default=["T"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["single", "8"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of ours in each round")
    parser.add_argument("--batch", type=int, default=8, help="conversations in a batch of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--as-shipped",
        action="store_true",
        help="let ours use the fastest exact float32 products, as training does",
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {"torch": torch.__version__, "threads": args.threads}
    if args.as_shipped:
        results["faster float32 products"] = use_fastest_float32()
    peak = peak_flops()
    results["peak_gflops"] = peak / 1e9
    print(f"float32 products: {peak / 1e9:.0f} GFLOP/s on {args.threads} threads")
    for geometry, kind in itertools.product(args.geometry, args.data):
        data = DATA[kind]()
        taken = compare(geometry, data, args.rounds, args.steps, args.batch)
        found = summary(taken, peak)
        found["data"] = {
            "tokens_a_row": data.tokens_a_row,
            "learned_a_row": data.learned_a_row,
            "tree_tokens_a_conversation": statistics.mean(len(tree) for tree in data.trees()),
        }
        found["steps"] = {way: [asdict(step) for step in steps] for way, steps in taken.items()}
        results[f"{geometry}, {data.name}"] = found
        report(f"{geometry}, {data.name}", found)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def report(name: str, found: dict[str, Any]) -> None:
    """Prints one comparison."""
    print(
        f"\n{name}: rows of {found['data']['tokens_a_row']:.0f} tokens,"
        f" {found['data']['learned_a_row']:.0f} learned"
    )
    for title, values in found.items():
        if title in ("data", "steps"):
            continue
        shown = values.get("learned_tokens_per_second", values)
        unit = " learned tokens/s" if shown is not values else ""
        digits = 3 if title == "MFU" else 1
        print(
            f"  {title:22} {shown['median']:8.{digits}f}{unit}"
            f"  ({shown['min']:.{digits}f} to {shown['max']:.{digits}f})"
        )


if __name__ == "__main__":
    main()
