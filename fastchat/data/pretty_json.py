"""Writes a JSON file anew, indented and with its characters readable.

python -m fastchat.data.pretty_json --in-file chat.json --out-file pretty.json

No value changes. What is not one JSON value, JSON Lines say, becomes a list.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastchat.data.json_values import JsonValues
from fastchat.data.tools import add_flag, add_out_file, run_tool, tool_parser
from fastchat.data.writing import check_out_file, write_items, write_json


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("pretty_json", "Indents any JSON or JSON Lines file.")
    add_flag(made, "--in-file", required=True, metavar="FILE", help="any JSON or JSON Lines file")
    add_out_file(made)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    values = JsonValues(Path(args.in_file), inner=False)
    first = next(iter(values), None)
    if values.alone:
        write_json(args.out_file, first)
    else:
        write_items(args.out_file, JsonValues(Path(args.in_file), inner=False))
    print(f"{args.in_file} -> {args.out_file}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
