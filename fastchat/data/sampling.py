"""Takes some samples out of a file; the tool `fastchat.data.sample`.

python -m fastchat.data.sample --in-file chat.json --end 10

The samples are the same ones each time.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

from fastchat.data.tools import (
    Tally,
    add_flag,
    add_in_file,
    add_out_file,
    add_range,
    read_items,
    run_tool,
    talks,
    tool_parser,
    whole_number,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import DataError

_SEED = 42


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("sample", "Takes some samples out of a file, shuffled first.")
    add_in_file(made)
    add_out_file(made, "sampled.json")
    add_range(made, end=100)
    length = "longest sample to take, in characters of all its turns (default: %(default)s)"
    add_flag(made, "--max-length", type=whole_number, default=1024, metavar="N", help=length)
    add_flag(made, "--keep-order", action="store_true", help="do not shuffle before --begin")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read, or nothing of it is left.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    items = list(enumerate(read_items(args.in_file), start=1))
    if not args.keep_order:
        random.Random(_SEED).shuffle(items)
    tally, sampled = Tally(), []
    for talk in talks(args.in_file, items[args.begin : args.end]):
        if sum(len(turn.text) for turn in talk.turns) > args.max_length:
            tally.drop(f"longer than {args.max_length} characters")
        else:
            tally.keep()
            sampled.append(talk.item)
    if not sampled:
        raise DataError(
            f"Nothing of {args.in_file} is left between --begin and --end: {tally}.",
            hint="Raise --max-length or --end.",
        )
    write_items(args.out_file, sampled)
    print(f"{tally} -> {args.out_file}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)
