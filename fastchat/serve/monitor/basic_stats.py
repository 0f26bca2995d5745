"""How many chats and votes there were: by day, by model, by kind of vote.

python3 -m fastchat.serve.monitor.basic_stats --log-dir logs
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fastchat.constants import LOGDIR
from fastchat.entry import run_entry
from fastchat.flag_types import at_least_one
from fastchat.serve.monitor.chat_log import VOTES, Entry, entries, log_files


@dataclass(slots=True)
class Counts:
    """What was counted.

    Attributes:
        kinds: entries by type.
        days: chats by day, in UTC.
        models: chats by model.
        opinions: for each model, its upvotes, downvotes and flags.
        battles: times that a model was compared with another.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    days: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    opinions: dict[str, Counter[str]] = field(default_factory=dict)
    battles: Counter[str] = field(default_factory=Counter)


def count(log: Iterable[Entry]) -> Counts:
    """Counts the entries of a log."""
    counts = Counts()
    for entry in log:
        kind = str(entry["type"])
        counts.kinds[kind] += 1
        if kind == "chat":
            moment = datetime.fromtimestamp(float(entry.get("tstamp", 0)), UTC)
            counts.days[moment.date().isoformat()] += 1
            counts.models[str(entry.get("model", ""))] += 1
        elif kind in ("upvote", "downvote", "flag"):
            counts.opinions.setdefault(str(entry.get("model", "")), Counter())[kind] += 1
        elif kind in VOTES:
            counts.battles.update(str(model) for model in entry.get("models", ()))
    return counts


def report(counts: Counts) -> str:
    """The counts as Markdown tables."""
    tables: list[tuple[str, Mapping[str, int]]] = [
        ("entries", counts.kinds),
        ("chats by day", counts.days),
        ("chats by model", counts.models),
        ("comparisons by model", counts.battles),
    ]
    lines: list[str] = []
    for title, found in tables:
        by_size = title.endswith(("model", "entries"))
        items = sorted(found.items(), key=lambda item: (-item[1] if by_size else 0, item[0]))
        lines += [f"| {title} | |", "| --- | --- |"]
        lines += [f"| {name} | {number} |" for name, number in items]
        lines.append("")
    lines += ["| model | upvotes | downvotes | flags |", "| --- | --- | --- | --- |"]
    for model, votes in sorted(counts.opinions.items()):
        lines.append(f"| {model} | {votes['upvote']} | {votes['downvote']} | {votes['flag']} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.monitor.basic_stats", description="Counts chats and votes."
    )
    found.add_argument("--max-num-files", type=at_least_one, help="only the newest logs")
    found.add_argument("--log-dir", type=Path, default=Path(LOGDIR or "."))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the report."""
    args = parser().parse_args(argv)
    print(report(count(entries(log_files(args.log_dir, args.max_num_files)))))


if __name__ == "__main__":
    run_entry(main)
