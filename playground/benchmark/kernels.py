"""The engine's kernels against torch's own operations of the same shape, taken in turns.

    python playground/benchmark/kernels.py [--threads 2] [--rounds 5] [--what products attention]
        [--json FILE]

Products read matrices that no cache holds: several copies take turns. `share` is of what this
machine reads from memory, measured in the same round by summing 512 MiB. Medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import torch
from torch.nn import functional

from fastchat.engine.native.kernels import BLOCK_SIZE, Kernels
from fastchat.engine.native.packed import KINDS, PackedMatrix

SHAPES = ((512, 2048), (2048, 512), (2048, 8192), (512, 135040))  # (inputs, outputs)
ROWS = (1, 4, 16, 64, 512)
MOST_OUTPUTS = 1 << 24
"""Larger results are left out: nobody asks for 512 rows of logits."""
UNCACHED = 1 << 27
CONTEXTS = (  # sequences, new rows of each, tokens of each, heads, width of a head
    (64, 1, 256, 8, 64),
    (16, 1, 2048, 8, 64),
    (1, 1, 8192, 32, 64),
    (1, 512, 512, 8, 64),
    (1, 512, 4096, 8, 64),
)
Row = dict[str, object]


def main() -> None:
    """Measures what is asked for and prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--what", nargs="+", default=["products", "attention"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kernels = Kernels(given.threads)
    cases = {"products": products, "attention": attention}
    rows = []
    for what in given.what:
        for row in cases[what](kernels, given.rounds):
            print(json.dumps(row), flush=True)
            rows.append(row)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def medians(rounds: int, work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, all of them in every round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def products(kernels: Kernels, rounds: int) -> Iterator[Row]:
    """Every shape, number of rows and kind of weights."""
    large = torch.ones(1 << 27)
    for inputs, outputs in SHAPES:
        weight = torch.randn(outputs, inputs) / inputs**0.5
        plain = [
            cycle([weight.to(dtype) for _ in range(copies(weight.to(dtype).nbytes))])
            for dtype in (torch.float32, torch.bfloat16)
        ]
        for kind in KINDS:
            size = kernels.pack(weight, kind).nbytes
            packed = cycle([kernels.pack(weight, kind) for _ in range(copies(size))])
            for count in ROWS:
                if count * outputs <= MOST_OUTPUTS:
                    work = one_product(kernels, count, packed, *plain)
                    if count == 1:
                        work["read"] = large.sum
                    took = medians(rounds, work)
                    row: Row = {"inputs": inputs, "outputs": outputs, "kind": kind, "rows": count}
                    row["gb_s"] = round(size / took["ours"] / 1e9, 1)
                    row["gflop_s"] = round(2 * count * weight.numel() / took["ours"] / 1e9, 1)
                    theirs = min(took["float32"], took["bfloat16"])
                    row["over_torch"] = round(theirs / took["ours"], 2)
                    if count == 1:
                        share = size / took["ours"] * took["read"] / large.nbytes
                        row["share"] = round(share, 2)
                    yield row


def one_product(
    kernels: Kernels,
    count: int,
    packed: Iterator[PackedMatrix],
    float32: Iterator[torch.Tensor],
    bfloat16: Iterator[torch.Tensor],
) -> dict[str, Callable[[], object]]:
    """Ours and torch's two, each with the next copy of its matrix."""
    first = next(packed)
    x, out = torch.randn(count, first.inputs), torch.empty(count, first.outputs)
    half = x.bfloat16()
    return {
        "ours": lambda: kernels.matmul(x, next(packed), out),
        "float32": lambda: functional.linear(x, next(float32)),
        "bfloat16": lambda: functional.linear(half, next(bfloat16)),
    }


def copies(size: int) -> int:
    """How many matrices of so many bytes exceed the caches together."""
    return max(1, UNCACHED // size)


def attention(kernels: Kernels, rounds: int) -> Iterator[Row]:
    """Decoding and prefilling over caches of both types, against torch over contiguous ones."""
    for dtype in (torch.float32, torch.bfloat16):
        for sequences, rows, context, heads, width in CONTEXTS:
            yield one_attention(kernels, rounds, dtype, sequences, rows, context, heads, width)


def one_attention(
    kernels: Kernels,
    rounds: int,
    dtype: torch.dtype,
    sequences: int,
    rows: int,
    context: int,
    heads: int,
    width: int,
) -> Row:
    """One shape: every sequence has the same context and number of new rows."""
    blocks = sequences * context // BLOCK_SIZE
    size = 2 * sequences * context * heads * width * dtype.itemsize
    filled = []
    for _ in range(copies(size) if rows == 1 else 1):
        keys, values = kernels.new_cache(blocks, heads, width, dtype=dtype)
        filled.append((keys.normal_(), values.normal_()))
    caches = cycle(filled)
    tables = torch.randperm(blocks).int().reshape(sequences, -1)
    q = torch.randn(sequences * rows, heads, width)
    out = torch.empty(sequences * rows, heads * width)
    starts = torch.arange(0, sequences * rows + 1, rows, dtype=torch.int32)
    contexts = torch.full((sequences,), context, dtype=torch.int32)
    shape = (sequences, heads, context, width)
    plain = cycle([(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)) for _ in filled])
    query = q.reshape(sequences, rows, heads, width).transpose(1, 2).to(dtype)
    mask = torch.ones(rows, context, dtype=torch.bool).tril(context - rows)

    def ours() -> None:
        keys, values = next(caches)
        kernels.attend(q, keys, values, starts, contexts, tables, out, scale=width**-0.5)

    def theirs() -> None:
        keys, values = next(plain)
        functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)

    took = medians(rounds, {"ours": ours, "torch": theirs})
    pairs = sequences * heads * int(mask.sum())
    return {
        "cache": str(dtype).removeprefix("torch."),
        "sequences": sequences,
        "rows": rows,
        "context": context,
        "heads": heads,
        "gb_s": round(size / took["ours"] / 1e9, 1),
        "gflop_s": round(4 * pairs * width / took["ours"] / 1e9, 1),
        "over_torch": round(took["torch"] / took["ours"], 2),
    }


if __name__ == "__main__":
    main()
