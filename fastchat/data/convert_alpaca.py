"""Turns Alpaca's and BELLE's instructions into ShareGPT conversations.

python -m fastchat.data.convert_alpaca --in-file alpaca.json --out-file chat.json

Fields that are not Alpaca's own stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastchat.data.formats import is_instruction, place_of, system_of, turns_of
from fastchat.data.tools import Item, add_in_file, add_out_file, read_items, run_tool, tool_parser
from fastchat.data.writing import check_out_file, write_items

_SPENT = ("instruction", "input", "output", "history")


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("convert_alpaca", "Turns Alpaca and BELLE data into conversations.")
    add_in_file(made)
    add_out_file(made)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: an item is not of one of the two forms.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    count = write_items(args.out_file, converted(args.in_file))
    print(f"{count} samples converted -> {args.out_file}")


def converted(path: str | Path) -> Iterator[Item]:
    """The conversations of an Alpaca or BELLE file, as items.

    Raises:
        DataError: while iterating: an item is not of one of the two forms.
    """
    for number, item in enumerate(read_items(path), start=1):
        place = place_of(path, number, item)
        if not is_instruction(item):
            raise place.error(
                "has no 'instruction'.",
                hint="Alpaca items hold 'instruction' and 'output', and perhaps 'input'.",
            )
        system_of(item, place)
        turns = [{"from": turn.role, "value": turn.text} for turn in turns_of(item, place)]
        others = {key: value for key, value in item.items() if key not in _SPENT}
        yield {**others, "id": place.id, "conversations": turns}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
