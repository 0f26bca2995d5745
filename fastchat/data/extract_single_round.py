"""Keeps the first question and answer of each conversation.

python -m fastchat.data.extract_single_round --in-file chat.json

A system turn stays before them; a conversation without an answer is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from fastchat.data.tools import (
    Item,
    Tally,
    add_in_file,
    add_out_file,
    add_range,
    beside,
    chosen_items,
    run_tool,
    talks,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("extract_single_round", "Keeps the first round of each conversation.")
    add_in_file(made)
    add_out_file(made, beside="X_single.json")
    add_range(made)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read, or a conversation is out of order.
        SettingsError: the output cannot be written.
    """
    out_file = args.out_file or beside(args.in_file, "single")
    check_out_file(out_file)
    tally = Tally()
    write_items(out_file, _single_rounds(args, tally))
    print(f"{tally} -> {out_file}")


def _single_rounds(args: argparse.Namespace, tally: Tally) -> Iterator[Item]:
    for talk in talks(args.in_file, chosen_items(args)):
        system, rounds = talk.rounds()
        if rounds:
            tally.keep()
            yield talk.with_turns([*system, *rounds[0]])
        else:
            tally.drop("without an answer")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
