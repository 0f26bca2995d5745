"""The most memory that a training step holds, ours against upstream's way.

    python playground/benchmark/train_memory.py [--geometry T] [--json]

Both train the network of `train.py` with AdamW on the same 4 single-turn samples of up to
1024 tokens, each in a process of its own: upstream's way pads each to 1024 tokens and
makes the logits of all. `whole` is the process's peak; `above` what a step adds to what
stands once the optimizer is made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from train import BATCH, GEOMETRIES, network, padded
from training_data import single_turn

from fastchat.data.tree import merge
from fastchat.train.batching import ForestCollator


def peak_mb() -> float:
    """The peak of resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def one(way: str, geometry: str) -> dict[str, float]:
    """Two steps; the second has the optimizer's states in place."""
    rows = [row for rows in single_turn(BATCH, mean=400).items for row in rows]
    batch = padded(rows) if way == "upstream" else ForestCollator()([merge([row]) for row in rows])
    inputs = {name: value for name, value in batch.items() if name != "item_ids"}
    model = network(geometry)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its states
    optimizer.zero_grad()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    standing = peak_mb()
    model(**inputs).loss.backward()
    optimizer.step()
    return {"whole_mb": peak_mb(), "above_mb": peak_mb() - standing}


def main() -> None:
    """Prints both and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--geometry", choices=GEOMETRIES, default="T")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--one", choices=("upstream", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.geometry)))
        return
    results = {}
    for way in ("upstream", "ours"):
        command = [sys.executable, __file__, "--geometry", args.geometry, "--one", way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[way] = json.loads(done.stdout.splitlines()[-1])
    results["ours / upstream"] = {
        name: results["ours"][name] / results["upstream"][name] for name in results["ours"]
    }
    if args.json:
        print(json.dumps(results, indent=2))
        return
    for way, facts in results.items():
        print(f"{way:16}" + "".join(f"  {name} {value:9.3f}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
