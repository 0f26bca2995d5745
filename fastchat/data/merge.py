"""Puts files of samples together, in the order given.

python -m fastchat.data.merge --in-file a.json b.jsonl --out-file merged.json

Items are taken as they are, whatever their form.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from fastchat.data.tools import Item, add_flag, add_out_file, read_items, run_tool, tool_parser
from fastchat.data.writing import check_out_file, write_items


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("merge", "Puts files of samples together, in the order given.")
    what = "files of samples: JSON, JSON Lines or Parquet"
    add_flag(made, "--in-file", required=True, nargs="+", metavar="FILE", help=what)
    add_out_file(made, "merged.json")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: a file cannot be read.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    count = write_items(args.out_file, _all_items(args.in_file))
    print(f"{count} samples -> {args.out_file}")


def _all_items(paths: Sequence[str]) -> Iterator[Item]:
    for path in paths:
        count = 0
        for item in read_items(path):
            yield item
            count += 1
        print(f"{path}: {count} samples")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
