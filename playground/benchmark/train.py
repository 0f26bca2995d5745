"""How much faster this project trains than upstream's way, measured side by side.

    python playground/benchmark/train.py [--geometry T M] [--data single 2 4 8 16] [--json]

Upstream's way is reproduced on the very same network: one sample a row, every row padded to
1024 tokens, logits of every token, batches of 4, and k full rows of a k-turn conversation.
Ours fills rows of --tokens with whole conversations, as `--tokens_per_batch` does: nothing is
padded, histories are shared, logits are made of learned tokens only. `packed` is ours without
sharing histories. Each computes a forward and a backward pass.

    same        float32 by torch's usual products, as upstream's way
    shipped     float32 by the fastest exact products, as training does; where there are none
                faster, it is the same as `same` and not measured again
    bf16        autocast, as --bf16 True

The ways take turns, so that a busy machine slows all of them. A padded step costs the same
whatever it holds, so one a round serves all kinds of data; likewise a way's rate is its tokens
a second times the learned tokens that a computed one stands for in all of the data. Ratios are
medians of the rounds' ratios, with their range; where the range holds 1, it counts as equal.
`by operations` is what the ratio would be if an operation cost the same everywhere. MFU takes
the useful operations (real tokens, learned logits, attention pairs that are looked at) against
the best rate of products that any library has shown here during the run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from training_data import Conversations, multi_turn, single_turn

from fastchat.data.bins import first_fit
from fastchat.data.rows import Row
from fastchat.data.tree import Tree, merge
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.cpu_matmul import use_fastest_float32
from fastchat.train.batch_counts import count
from fastchat.train.batching import ForestCollator, RowCollator
from fastchat.train.report.flops import useful_flops

LENGTH = 1024
BATCH = 4
UPSTREAM = "upstream's way"
GEOMETRIES = {"T": (256, 4, 4), "M": (1024, 8, 16)}
BACKENDS = ("same", "shipped", "bf16")
DATA: dict[str, Callable[[], Conversations]] = {
    "single": lambda: single_turn(1000),
    "2": lambda: multi_turn(500, 2, mean=55),
    "4": lambda: multi_turn(250, 4, mean=55),
    "8": lambda: multi_turn(125, 8, mean=55),
    "16": lambda: multi_turn(60, 16, mean=28),
}
REAL_UPSTREAM = {"padded_tokens_per_second": 280, "gflops": 220}
"""What upstream's own code reached on T, and the products of the machine it ran on."""


@dataclass(frozen=True, slots=True)
class Step:
    """A measured forward and backward pass.

    Attributes:
        tokens: computed, padding included.
        wall_s: wall time.
        cpu_s: of all threads.
        flops: useful operations; all of them for a padded row.
    """

    tokens: int
    wall_s: float
    cpu_s: float
    flops: float


@dataclass(slots=True)
class Way:
    """One way to train on some data.

    Attributes:
        learned_a_token: learned tokens for each computed one, over all of the data.
        batches: without end.
        steps: what was measured of it, one a round.
    """

    learned_a_token: float
    batches: Iterator[list[Tree]]
    steps: list[Step] = field(default_factory=list)

    def rate(self, number: int, *, cpu: bool = False) -> float:
        """Learned tokens a second of round `number`."""
        step = self.steps[number]
        return self.learned_a_token * step.tokens / (step.cpu_s if cpu else step.wall_s)


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


def padded(rows: Sequence[Row]) -> dict[str, Any]:
    """Upstream's batch: rows as they are, padded to the limit."""
    batch = RowCollator(pad_id=0)([merge([row]) for row in rows])
    short = LENGTH - batch["input_ids"].shape[1]
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    for name, value in fill.items():
        batch[name] = torch.nn.functional.pad(batch[name], (0, short), value=value)
    return batch


def timed(model: YuanForCausalLM, collate: Callable[[], dict[str, Any]]) -> Step:
    """Lays a batch out and runs it forward and backward."""
    model.zero_grad(set_to_none=True)
    wall, cpu = time.perf_counter(), time.process_time()
    batch = collate()
    model(**{name: value for name, value in batch.items() if name != "item_ids"}).loss.backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counted = count(batch)
    shape = model.config.to_dict()
    if counted.padding:  # of a padded batch everything is computed
        places = counted.tokens + counted.padding
        pairs = places * (LENGTH + 1) // 2
        return Step(places, wall, cpu, useful_flops(shape, places, places, pairs))
    flops = useful_flops(shape, counted.tokens, counted.learned, counted.attention_pairs)
    return Step(counted.tokens, wall, cpu, flops)


def filled(trees: Sequence[Tree], budget: int) -> Way:
    """Trees in rows of a token budget."""
    lengths = np.array([len(tree) for tree in trees])
    bins = [[trees[place] for place in members] for members in first_fit(lengths, budget)]
    full = [trees for trees in bins if sum(map(len, trees)) > budget // 2] or bins
    learned = sum(tree.learned_tokens for tree in trees)
    return Way(learned / int(lengths.sum()), itertools.cycle(full))


def ways_of(data: Conversations, backends: Sequence[str], budget: int) -> dict[str, Way]:
    """Our ways to train on a kind of data: "ours, BACKEND" and "packed, same"."""
    ways = {f"ours, {backend}": filled(data.trees(), budget) for backend in backends}
    if len(data.items[0]) > 1:
        rows = [merge([row]) for rows in data.items for row in rows]
        ways["packed, same"] = filled(rows, budget)
    return ways


class Backends:
    """Switches between the ways that products are computed, and knows how fast they are.

    Attributes:
        names: of those that differ here.
        peaks: the best rate seen of each, in FLOP/s.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        self._settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        self._usual = self._settings.fp32_precision
        faster = use_fastest_float32()
        self._precision = {"same": self._usual, "shipped": self._settings.fp32_precision}
        self._settings.fp32_precision = self._usual
        self.names = [name for name in wanted if name != "shipped" or faster]
        self.peaks = dict.fromkeys({*self.names, "same"} | ({"shipped"} if faster else set()), 0.0)

    def use(self, name: str) -> AbstractContextManager[Any]:
        """Products in this way from now on, within the context that is returned."""
        self._settings.fp32_precision = self._precision.get(name, self._usual)
        if name == "bf16":
            return torch.autocast("cpu", torch.bfloat16)
        return nullcontext()

    def look(self) -> None:
        """Measures the rates again, as the machine may have been busy before."""
        for name in self.peaks:
            with self.use(name):
                dtype = torch.bfloat16 if name == "bf16" else torch.float32
                self.peaks[name] = max(self.peaks[name], product_flops(dtype))

    def peak(self, name: str) -> float:
        """What an MFU is a share of: bfloat16's rate, or the best that float32 has."""
        if name == "bf16":
            return self.peaks["bf16"]
        return max(self.peaks[other] for other in self.peaks if other != "bf16")


def product_flops(dtype: torch.dtype) -> float:
    """The best rate of products of 1024 rows with a square of 2048, in FLOP/s."""
    left, right = torch.randn(1024, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 2048 * 2048 / best


def compare(
    model: YuanForCausalLM,
    data: Mapping[str, Conversations],
    ways: Mapping[str, Mapping[str, Way]],
    backends: Backends,
    rounds: int,
) -> list[Step]:
    """Rounds of one padded step and one of each of our ways; returns the padded steps."""
    flat = ForestCollator()
    rows = [row for rows in next(iter(data.values())).items for row in rows]
    taken = []
    for number in range(rounds + 1):
        backends.look()
        if number:  # the first round warms our ways up
            with backends.use("same"):
                some = rows[BATCH * number : BATCH * (number + 1)]
                taken.append(timed(model, lambda some=some: padded(some)))  # type: ignore[misc]
        for kind in ways.values():
            for name, way in kind.items():
                batch = next(way.batches)
                with backends.use(name.partition(", ")[2]):
                    step = timed(model, lambda batch=batch: flat(batch))  # type: ignore[misc]
                if number:
                    way.steps.append(step)
    return taken


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(
    data: Conversations, ways: Mapping[str, Way], theirs: Way, backends: Backends
) -> dict[str, Any]:
    """Rates, ratios and MFU on one kind of data."""
    rounds = range(len(theirs.steps))
    result: dict[str, Any] = {
        "tokens_a_row": data.tokens_a_row,
        "learned_a_row": data.learned_a_row,
        "shared": 1 - sum(map(len, data.trees())) / data.tokens,
        "learned_tokens_per_second": {},
        "ratios": {},
        "MFU": {},
    }
    for name, way in {UPSTREAM: theirs, **ways}.items():
        result["learned_tokens_per_second"][name] = spread([way.rate(i) for i in rounds])
    pairs = [(name, UPSTREAM) for name in ways if name.startswith("ours")]
    pairs += [("ours, same", name) for name in ways if name.startswith("packed")]
    everyone = {UPSTREAM: theirs, **ways}
    for above, below in pairs:
        for unit in ("", " (CPU)"):
            cpu = bool(unit)
            ratios = [
                everyone[above].rate(i, cpu=cpu) / everyone[below].rate(i, cpu=cpu) for i in rounds
            ]
            found = spread(ratios)
            equal = found["min"] <= 1 <= found["max"]
            result["ratios"][f"{above} / {below}{unit}"] = found | {"equal": equal}
    for name, way in ways.items():
        peak = backends.peak(name.partition(", ")[2])
        result["MFU"][name] = spread([step.flops / step.wall_s / peak for step in way.steps])
    result["by operations"] = _operations(theirs) / _operations(ways[pairs[0][0]])
    result["steps"] = {name: [asdict(s) for s in way.steps] for name, way in everyone.items()}
    return result


def _operations(way: Way) -> float:
    """Operations for each learned token."""
    flops, tokens = sum(step.flops for step in way.steps), sum(step.tokens for step in way.steps)
    return flops / (tokens * way.learned_a_token)


def sanity(geometry: str, steps: Sequence[Step], backends: Backends) -> dict[str, float]:
    """Upstream's way against upstream itself, which ran on another machine."""
    rate = statistics.median(step.tokens / step.wall_s for step in steps)
    scale = backends.peaks["same"] / 1e9 / REAL_UPSTREAM["gflops"]
    expected = {"T": REAL_UPSTREAM["padded_tokens_per_second"] * scale}.get(geometry)
    found = {"padded_tokens_per_second": rate}
    return found if expected is None else found | {"real_upstream_scaled_to_here": expected}


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--geometry", nargs="+", choices=GEOMETRIES, default=["T"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["single", "8", "16"])
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=["same", "shipped"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2048, help="in a row of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backends = Backends(args.backend)
    kinds = {kind: DATA[kind]() for kind in args.data}
    results: dict[str, Any] = {"torch": torch.__version__, "threads": args.threads}
    for geometry in args.geometry:
        ways = {name: ways_of(data, backends.names, args.tokens) for name, data in kinds.items()}
        steps = compare(network(geometry), kinds, ways, backends, args.rounds)
        results[geometry] = sanity(geometry, steps, backends)
        for kind, data in kinds.items():
            theirs = Way(data.learned_a_row / LENGTH, iter(()), steps)
            found = summary(data, ways[kind], theirs, backends)
            results[geometry][data.name] = found
        if not args.json:
            report(geometry, results[geometry])
    results["gflops"] = {name: round(peak / 1e9, 1) for name, peak in backends.peaks.items()}
    print(json.dumps(results, indent=2) if args.json else f"\nGFLOP/s: {results['gflops']}")


def report(geometry: str, found: Mapping[str, Any]) -> None:
    """Prints the results of a geometry."""
    print(f"\n{geometry}: {found['padded_tokens_per_second']:.1f} padded tokens/s of {UPSTREAM}")
    if "real_upstream_scaled_to_here" in found:
        print(f"   (upstream itself, scaled: {found['real_upstream_scaled_to_here']:.1f})")
    for kind, values in found.items():
        if not isinstance(values, Mapping):
            continue
        print(
            f"\n  {kind}: rows of {values['tokens_a_row']:.0f} tokens,"
            f" {values['learned_a_row']:.0f} learned, {values['shared']:.0%} shared"
        )
        for title, digits in (("learned_tokens_per_second", 1), ("ratios", 2), ("MFU", 3)):
            for name, row in values[title].items():
                middle, low, high = (f"{row[part]:.{digits}f}" for part in ("median", "min", "max"))
                label = {"ratios": "x", "MFU": "MFU"}.get(title, "tokens/s")
                equal = ", equal" if row.get("equal") else ""
                print(f"    {name:40} {middle:>8} {label}  ({low} to {high}{equal})")
        print(f"    {'by operations':40} {values['by operations']:8.2f} x")


if __name__ == "__main__":
    main()
