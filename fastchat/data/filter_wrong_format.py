"""Leaves out samples that cannot be trained on, and those with broken numbered lists.

    python -m fastchat.data.filter_wrong_format --in-file chat.json --out-file good.json

A list is broken where one entry numbered 1 follows another with none numbered 2 in between:
what is left of a list whose numbers a converter has lost.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fastchat.data.formats import place_of
from fastchat.data.reader import iter_items, sample_of
from fastchat.data.tools import Tally, add_in_file, add_out_file, run_tool, tool_parser
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import DataError

_SHOWN = 5  # samples of which the fault is printed
_REFUSED = "not as training reads them"
_NUMBERED = re.compile(r"^([12])\. ", re.MULTILINE)


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("filter_wrong_format", "Leaves out samples that cannot be trained on.")
    add_in_file(made)
    add_out_file(made)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    tally = Tally()
    write_items(args.out_file, _well_formed(args.in_file, tally))
    print(f"{tally} -> {args.out_file}")


def has_broken_list(text: str) -> bool:
    """Whether a numbered list in a text goes from 1 to 1."""
    numbers = "".join(_NUMBERED.findall(text))
    return "11" in numbers


def _well_formed(path: str, tally: Tally) -> Iterator[Any]:
    number = 0
    for number, item in enumerate(iter_items(path), start=1):
        fault = _fault(path, number, item, tally)
        if fault is None:
            tally.keep()
            yield item
        else:
            tally.drop(fault)
    if not number:
        raise DataError(f"{path} holds no samples.")


def _fault(path: str, number: int, item: Any, tally: Tally) -> str | None:
    place = place_of(path, number, item)
    try:
        sample = sample_of(item, place)
    except DataError as error:
        if tally.dropped[_REFUSED] < _SHOWN:
            print(f"dropped: {error.message}", file=sys.stderr)
        return _REFUSED
    broken = any(has_broken_list(message["content"]) for message in sample.messages)
    if not sample.messages:
        return "without an answer"
    return "with a list numbered 1, 1" if broken else None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
