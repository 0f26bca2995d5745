r"""Says how far judges agree, models or people.

python3 -m fastchat.llm_judge.compute_agreement --judges gpt4-pair human \
    --votefiles human_judgments.json data/mt_bench/model_judgment/gpt-4_pair.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from fastchat.entry import run_entry
from fastchat.errors import DataError
from fastchat.llm_judge.records import Record, read_records


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.llm_judge.compute_agreement", description="Says how far judges agree."
    )
    add = found.add_argument
    add(
        "--judges",
        nargs=2,
        default=["gpt4-pair", "human"],
        metavar="JUDGE",
        help="human, author, gpt4-pair, or NAME-pair for another judge model; twice the same name"
        " compares its votes with each other",
    )
    add(
        "--votefiles",
        nargs="+",
        type=Path,
        default=[Path("gpt4_judgments.json"), Path("human_judgments.json")],
        metavar="FILE",
        help="JSON lists of votes, or pair judgments as gen_judgment writes them",
    )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the agreement in each turn, with and without ties."""
    args = parser().parse_args(argv)

    from fastchat.llm_judge.votes import agreement, votes

    cast = votes(record for path in args.votefiles for record in _read(path))
    judges = (args.judges[0], args.judges[1])
    known = sorted({judge for by_judge in cast.values() for judge in by_judge})
    if unknown := [judge for judge in judges if judge not in known]:
        raise DataError(
            f"There are no votes of {' and '.join(unknown)}; there are votes of"
            f" {', '.join(known) or 'nobody'}."
        )
    for turn in sorted({pair[1] for pair in cast}):
        for ties in (True, False):
            found = agreement(cast, judges, turn, ties=ties)
            ratio = "-" if found.ratio is None else f"{found.ratio:.2f}"
            print(
                f"turn {turn} {'with' if ties else 'without'} tie. #total: {found.total},"
                f" #agree: {found.agreeing}, ratio: {ratio}"
            )


def _read(path: Path) -> list[Record]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not text.lstrip().startswith("["):
        return read_records(path)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}.") from error
    if not all(isinstance(record, dict) for record in found):
        raise DataError(f"{path} holds what is no vote.")
    records: list[Record] = found
    return records


if __name__ == "__main__":
    run_entry(main)
