"""Keeps conversations in one language, and drops those that stammer.

    python -m fastchat.data.optional_clean --in-file chat.json --keep-lang zh --reduce-rep

The language is told as `fastchat.data.language` says, from all turns together. A
conversation stammers where a letter or digit stands nine times in a row, or more often.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastchat.data.language import LANGUAGES, language_of
from fastchat.data.talk import Talk
from fastchat.data.tools import (
    Item,
    Tally,
    add_flag,
    add_in_file,
    add_out_file,
    beside,
    read_items,
    run_tool,
    talks,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import SettingsError

_STAMMER = re.compile(r"([^\W_])\1{8}")


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("optional_clean", "Keeps or drops a language; drops stammering samples.")
    add_in_file(made)
    add_out_file(made, beside="X_en.json for --keep-lang en, X_skip_en.json, X_reduced.json")
    codes = f"one of {', '.join(LANGUAGES)}; un is unknown"
    keep = f"keep this language only: all, or {codes} (default: %(default)s)"
    languages = ("all", *LANGUAGES)
    add_flag(made, "--keep-lang", choices=languages, default="all", metavar="LANG", help=keep)
    skip = "drop this language instead; codes as above"
    add_flag(made, "--skip-lang", choices=LANGUAGES, metavar="LANG", help=skip)
    stammer = "drop samples with a letter or digit nine times in a row"
    add_flag(made, "--reduce-rep", action="store_true", help=stammer)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read, or a sample of it is no conversation.
        SettingsError: the flags contradict each other, or the output cannot be written.
    """
    if args.keep_lang != "all" and args.skip_lang:
        raise SettingsError(
            f"--keep-lang {args.keep_lang} and --skip-lang {args.skip_lang} exclude each other.",
            hint="Give one of them.",
            param="--skip-lang",
        )
    out_file = args.out_file or _default_name(args)
    check_out_file(out_file)
    tally = Tally()
    write_items(out_file, _clean(args, tally))
    print(f"{tally} -> {out_file}")


def _default_name(args: argparse.Namespace) -> Path:
    parts = [] if args.keep_lang == "all" else [args.keep_lang]
    parts += [f"skip_{args.skip_lang}"] if args.skip_lang else []
    parts += ["reduced"] if args.reduce_rep else []
    return beside(args.in_file, "_".join(parts or ["all"]))


def _clean(args: argparse.Namespace, tally: Tally) -> Iterator[Item]:
    for talk in talks(args.in_file, enumerate(read_items(args.in_file), start=1)):
        fault = _fault(talk, args)
        if fault is None:
            tally.keep()
            yield talk.item
        else:
            tally.drop(fault)


def _fault(talk: Talk, args: argparse.Namespace) -> str | None:
    if args.reduce_rep and stammers(talk.text):
        return "stammering"
    if args.keep_lang == "all" and not args.skip_lang:
        return None
    language = language_of(talk.text)
    wanted = language != args.skip_lang if args.skip_lang else language == args.keep_lang
    return None if wanted else f"in {language}"


def stammers(text: str) -> bool:
    """Whether a letter or digit stands nine times in a row in a text, or more often."""
    return _STAMMER.search(text) is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
