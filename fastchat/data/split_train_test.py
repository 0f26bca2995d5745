"""Divides a file at random into one to train on and one to test with.

    python -m fastchat.data.split_train_test --in-file chat.json

writes chat_train.json and chat_test.json, the same ones each time.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from fastchat.data.tools import (
    add_flag,
    add_in_file,
    add_range,
    beside,
    chosen_items,
    run_tool,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import DataError

_SEED = 0


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("split_train_test", "Divides X.json into X_train.json and X_test.json.")
    add_in_file(made)
    add_range(made)
    what = "share of the samples to train on (default: %(default)s)"
    add_flag(made, "--ratio", type=_share, default=0.9, metavar="R", help=what)
    return made


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; a number between 0 and 1 is needed")
    return value


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read, or holds too little for two files.
        SettingsError: the output cannot be written.
    """
    outputs = [beside(args.in_file, part) for part in ("train", "test")]
    for path in outputs:
        check_out_file(path)
    items = [item for _, item in chosen_items(args)]
    random.Random(_SEED).shuffle(items)
    border = int(args.ratio * len(items))
    parts = items[:border], items[border:]
    if not all(parts):
        raise DataError(
            f"{args.in_file}: {len(items)} samples at --ratio {args.ratio} leave "
            f"{len(parts[0])} to train on and {len(parts[1])} to test with.",
            hint="Each part needs one at least; change --ratio or give more samples.",
        )
    for path, part in zip(outputs, parts, strict=True):
        write_items(path, part)
        print(f"{len(part)} samples -> {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
