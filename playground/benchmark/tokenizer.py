"""How fast the Yuan2 tokenizer encodes, against bare SentencePiece on the same text.

    python playground/benchmark/tokenizer.py --tokenizer FOLDER [--text FILE] [--json]

Each round times both, one after the other; what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 7


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a tokenizer")
    parser.add_argument("--text", type=Path, help="UTF-8 text; the demo's prose if unset")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()

    from fastchat.demo.corpus import data_path
    from fastchat.model import load_tokenizer

    tokenizer = load_tokenizer(args.tokenizer)
    bare = tokenizer.sp_model
    text = (args.text or Path(str(data_path("prose.txt")))).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and "<" not in line] * 4
    size_mb = len("".join(lines).encode()) / 1e6
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "one by one": (
            lambda: [tokenizer(line)["input_ids"] for line in lines],
            lambda: [bare.encode(line) for line in lines],
        ),
        "one by one, ids only": (
            lambda: [tokenizer.encode_ids(line) for line in lines],
            lambda: [bare.encode(line) for line in lines],
        ),
        "as one batch": (lambda: tokenizer(lines)["input_ids"], lambda: bare.encode(lines)),
    }
    results = {}
    for name, (ours, theirs) in pairs.items():
        assert ours() == theirs(), "both give the same ids"
        rounds = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
        results[name] = {
            "mb_per_s": size_mb / statistics.median(own for own, _ in rounds),
            "sentencepiece_mb_per_s": size_mb / statistics.median(other for _, other in rounds),
            "ratio": statistics.median(other / own for own, other in rounds),
            "ratio_min": min(other / own for own, other in rounds),
            "ratio_max": max(other / own for own, other in rounds),
        }
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{len(lines)} lines, {size_mb:.2f} MB; median of {ROUNDS} rounds")
    for name, row in results.items():
        speeds = f"{row['mb_per_s']:6.2f} MB/s, SentencePiece {row['sentencepiece_mb_per_s']:6.2f}"
        spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        print(f"{name:22}  {speeds}, ratio {row['ratio']:.2f} {spread}")


if __name__ == "__main__":
    main()
