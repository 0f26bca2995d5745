"""How long it takes to read, tokenise, mask and lay out a data file, against bare encoding.

    YUAN2_TOKENIZER=FOLDER python playground/benchmark/tokenise.py [--rows 52000] [--json]

`bare` is SentencePiece's own `encode` of the same texts on two threads. `ours` reads the
JSON file, checks it, builds the rows and writes the Arrow file; `cached` is the second
time. `three passes` is upstream's way on a sample of the rows, scaled: each conversation
padded to 1024 tokens, each round again, each question again, one by one through
transformers' general tokenizer code. All take turns; medians of the rounds.

`growth` builds files of growing size, each in a process of its own and on one core, as work on
two takes longer on each: CPU time a row, and what memory that took at most beyond what stood
before. Its time against the least is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
SAMPLE = 1000
LENGTH = 1024
WORDS = [
    *("the", "model", "reads", "a", "row", "of", "tokens", "and", "learns", "what", "follows"),
    *("each", "of", "them", "given", "all", "before", "it", "list", "three", "ways", "to"),
    *("数据", "训练", "模型", "回答", "问题", "语言", "学习", "北京", "今天", "天气", "很好"),
    *("stay", "healthy", "while", "working", "from", "home", "with", "12", "colleagues,"),
    *("def", "add(a,", "b):", "return", "a", "+", "b", "我们", "可以", "如何", "使用"),
]


def write_data(path: Path, rows: int, seed: int = 0) -> None:
    """Single-turn ShareGPT conversations of about 120 tokens, 65 % of them in the answer."""
    random = np.random.default_rng(seed)
    items = []
    for number in range(rows):
        size = int(np.clip(random.gamma(3.0, 27), 8, 700))
        words = [WORDS[index] for index in random.integers(0, len(WORDS), size)]
        cut = max(1, round(0.35 * size))
        items.append(
            {
                "id": f"row_{number}",
                "conversations": [
                    {"from": "human", "value": " ".join(words[:cut])},
                    {"from": "gpt", "value": " ".join(words[cut:]) or "yes"},
                ],
            }
        )
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")


def build(tokenizer: Any, path: Path) -> Any:
    """What training does with a data file before its first step."""
    from fastchat.data.dataset import ItemReader
    from fastchat.data.rows import LossMode
    from fastchat.data.sources import Source
    from fastchat.model.model_adapter import get_chat_renderer

    renderer = get_chat_renderer(tokenizer, tokenizer.name_or_path)
    reader = ItemReader(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, LENGTH)
    return reader.read([Source(str(path))])


def three_passes(tokenizer: Any, path: Path, limit: int) -> None:
    """Upstream's way, on the first rows."""
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    def encode(text: str, **options: Any) -> Any:
        return SentencePieceBackend.__call__(tokenizer, text, **options)

    for item in json.loads(path.read_text(encoding="utf-8"))[:limit]:
        question, answer = (turn["value"] for turn in item["conversations"])
        text = f"{question}<sep>{answer}<eod>"
        encode(
            text,
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        )
        encode(text)
        encode(question + "<sep>")


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """The ways in turns."""
    from fastchat.model import load_tokenizer

    tokenizer = load_tokenizer(os.environ["YUAN2_TOKENIZER"])
    path = folder / "data.json"
    write_data(path, rows)
    texts = [
        " ".join(turn["value"] for turn in item["conversations"])
        for item in json.loads(path.read_text(encoding="utf-8"))
    ]
    taken: dict[str, list[float]] = {"bare": [], "ours": [], "cached": [], "three passes": []}
    encode = tokenizer.sp_model.encode
    for number in range(rounds):
        os.environ["FASTCHAT_CACHE"] = str(folder / f"cache{number}")
        taken["bare"].append(seconds(lambda: encode(texts, num_threads=THREADS)))
        taken["ours"].append(seconds(lambda: build(tokenizer, path)))
        taken["cached"].append(seconds(lambda: build(tokenizer, path)))
        share = seconds(lambda: three_passes(tokenizer, path, SAMPLE))
        taken["three passes"].append(share * rows / SAMPLE)
    result: dict[str, Any] = {way: _spread(values) for way, values in taken.items()}
    pairs = {"ours / bare": ("ours", "bare"), "three passes / ours": ("three passes", "ours")}
    for name, (above, below) in pairs.items():
        ratios = [a / b for a, b in zip(taken[above], taken[below], strict=True)]
        result[name] = _spread(ratios)
    return result


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def growth(folder: Path, sizes: list[int], rounds: int) -> dict[str, dict[str, Any]]:
    """CPU time a row and memory, for files of growing size, in turns."""
    paths = {rows: folder / f"{rows}.json" for rows in sizes}
    for rows, path in paths.items():
        write_data(path, rows)
    taken: dict[int, list[dict[str, float]]] = {rows: [] for rows in sizes}
    for number in range(rounds):
        environment = {**os.environ, "FASTCHAT_CACHE": str(folder / f"growing{number}")}
        for rows, path in paths.items():
            command = [sys.executable, __file__, "--one", str(path)]
            found = subprocess.run(command, env=environment, check=True, capture_output=True)
            taken[rows].append(json.loads(found.stdout.splitlines()[-1]))
    first = taken[sizes[0]]
    return {
        str(rows): {
            "cpu_us_a_row": _spread([facts["cpu_us_a_row"] for facts in found]),
            f"cpu against {sizes[0]} rows": _spread(
                [a["cpu_us_a_row"] / b["cpu_us_a_row"] for a, b in zip(found, first, strict=True)]
            ),
            "grown_mb": _spread([facts["grown_mb"] for facts in found]),
        }
        for rows, found in taken.items()
    }


def one(path: Path) -> None:
    """Builds one file; prints what it cost beyond what loading tokenizer and libraries did."""
    import pyarrow.ipc  # noqa: F401

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from fastchat.model import load_tokenizer

    tokenizer = load_tokenizer(os.environ["YUAN2_TOKENIZER"])
    small = path.with_name("small.json")
    write_data(small, 2 * SAMPLE)
    build(tokenizer, small)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak
    cpu, base = _cpu_seconds(), _peak_mb()
    items = build(tokenizer, path)
    facts = {
        "cpu_us_a_row": (_cpu_seconds() - cpu) / len(items) * 1e6,
        "grown_mb": _peak_mb() - base,
    }
    print(json.dumps(facts))


def _peak_mb() -> float:
    """Most resident memory since the peak was last forgotten."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=52_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
        return
    with tempfile.TemporaryDirectory() as name:
        results = measure(Path(name), args.rows, args.rounds)
        results["growth"] = growth(Path(name), args.sizes, args.rounds) if args.sizes else {}
    if args.json:
        print(json.dumps(results, indent=2))
        return
    for title, values in results.items():
        if title == "growth":
            for rows, facts in values.items():
                for fact, row in facts.items():
                    show(f"{rows} rows, {fact}", row)
        else:
            show(title, values)


def show(title: str, row: dict[str, float]) -> None:
    """Prints a median with its range."""
    print(f"{title:42} {row['median']:9.2f}  ({row['min']:.2f} to {row['max']:.2f})")


if __name__ == "__main__":
    main()
