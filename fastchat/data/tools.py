"""What the data tools share: their flags, how they read, and how they tell what they did.

A tool is a module with `parser()`, `run(args)` and `main(argv)`, started with
`python -m fastchat.data.NAME`. It reads any file that training reads. Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fastchat.data.formats import kind, place_of
from fastchat.data.json_values import LINE_SUFFIXES
from fastchat.data.reader import iter_items
from fastchat.data.talk import Talk
from fastchat.errors import DataError, FastChatError, SettingsError

Item = dict[str, Any]


def tool_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for the tool `fastchat.data.NAME`."""
    return argparse.ArgumentParser(prog=f"python -m fastchat.data.{name}", description=description)


def add_flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """Adds a flag in both spellings: `--in-file` and `--in_file`."""
    spellings = dict.fromkeys((name, "--" + name[2:].replace("-", "_")))
    parser.add_argument(*spellings, **options)


def add_in_file(parser: argparse.ArgumentParser) -> None:
    """Adds --in-file."""
    what = "file of conversations: JSON, JSON Lines or Parquet"
    add_flag(parser, "--in-file", required=True, metavar="FILE", help=what)


def add_out_file(
    parser: argparse.ArgumentParser, default: str | None = None, *, beside: str | None = None
) -> None:
    """Adds --out-file.

    Args:
        parser: of the tool.
        default: a fixed name.
        beside: or the end of a name that is made from --in-file's, `X_single.json` say;
            with neither the flag is required.
    """
    note = f" (default: {default})" if default else ""
    note = f" (default: {beside}, X being the input's name)" if beside else note
    what = f"JSON file to write; one value a line if it ends in .jsonl{note}"
    required = not default and not beside
    add_flag(parser, "--out-file", default=default, required=required, metavar="FILE", help=what)


def add_range(parser: argparse.ArgumentParser, *, end: int | None = None) -> None:
    """Adds --begin and --end, which choose samples by their place from 0."""
    first = "first sample to read, counted from 0 (default: %(default)s)"
    last = f"sample to stop before (default: {'the last' if end is None else end})"
    add_flag(parser, "--begin", type=whole_number, default=0, metavar="N", help=first)
    add_flag(parser, "--end", type=whole_number, default=end, metavar="N", help=last)


def add_model(parser: argparse.ArgumentParser, what: str, *, required: bool = True) -> None:
    """Adds --model-name-or-path."""
    add_flag(parser, "--model-name-or-path", required=required, metavar="MODEL", help=what)


def whole_number(text: str) -> int:
    """Reads a whole number from 0 on; for argparse's `type`."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"is {text!r}; a whole number from 0 on is needed")
    return int(text)


def run_tool(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    """Parses the flags and runs a tool; returns the exit status."""
    args = parser.parse_args(argv)
    try:
        run(args)
        sys.stdout.flush()
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # the reader of the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


def read_items(path: str | Path) -> Iterator[Item]:
    """The items of a file, which have to be objects.

    Raises:
        DataError: while iterating: the file cannot be read, is empty, or holds other values.
    """
    number = 0
    for number, item in enumerate(iter_items(path), start=1):
        if not isinstance(item, dict):
            raise place_of(path, number, item).error(f"is {kind(item)}; an object is needed.")
        yield item
    if not number:
        raise DataError(f"{path} holds no samples.")


def chosen_items(args: argparse.Namespace) -> Iterator[tuple[int, Item]]:
    """The items of --in-file from --begin to --end, each with its place in the file from 1.

    Raises:
        DataError: while iterating: see `read_items`; or there is none in that range.
    """
    chosen = islice(enumerate(read_items(args.in_file), start=1), args.begin, args.end)
    number = 0
    for number, item in chosen:
        yield number, item
    if not number:
        end = "its end" if args.end is None else args.end
        raise DataError(
            f"{args.in_file} has no sample from {args.begin} to {end}.",
            hint="Check --begin and --end; samples are counted from 0.",
        )


def talks(path: str | Path, items: Iterable[tuple[int, Item]]) -> Iterator[Talk]:
    """Numbered items as talks.

    Raises:
        DataError: while iterating: names the sample that is none, and how to leave it out.
    """
    for number, item in items:
        try:
            yield Talk.of(item, place_of(path, number, item))
        except DataError as error:
            way_out = "python -m fastchat.data.filter_wrong_format leaves such samples out."
            hint = error.hint or ""
            raise DataError(error.message, hint=f"{hint} {way_out}".strip()) from None


def beside(path: str | Path, ending: str) -> Path:
    """`X_ending.json` for `X.json`; a name that JSON can be written to."""
    path = Path(path)
    json_like = path.suffix.lower() in (".json", *LINE_SUFFIXES)
    return path.with_name(f"{path.stem}_{ending}{path.suffix if json_like else '.json'}")


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a model folder; takes seconds.

    Raises:
        CheckpointError: there is no such folder, or no tokenizer in it.
        SettingsError: the name is empty.
    """
    if not model:
        raise SettingsError("--model-name-or-path is empty.", hint="Give a model's folder.")
    from fastchat.model import load_tokenizer as load

    return load(model)


class Tally:
    """Counts what was kept and what was dropped, and why."""

    def __init__(self) -> None:
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def keep(self) -> None:
        """Counts a sample that stays."""
        self.kept += 1

    def drop(self, reason: str) -> None:
        """Counts a sample that does not."""
        self.dropped[reason] += 1

    def note(self, what: str, count: int = 1) -> None:
        """Counts what else there is to tell."""
        self.notes[what] += count

    def __str__(self) -> str:
        """The counts in a sentence, reasons in the order of their first use."""
        gone = self.dropped.total()
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
        said = f"{self.kept + gone} samples: {self.kept} kept, {gone} dropped"
        said = f"{said} ({reasons})" if reasons else said
        return "; ".join([said, *(f"{count} {what}" for what, count in self.notes.items())])
