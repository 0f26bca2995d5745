"""Cleans conversations that were saved from web pages.

    python -m fastchat.data.clean_sharegpt --in-file pages.json --out-file sharegpt_clean.json

Turns that are HTML become Markdown. Left out are samples that training would refuse, that
have fewer than two turns or an empty one, that hold a word of --drop-words, or that begin
with the same question and answer as one before. A turn before the first question and a last
question without an answer are cut off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from fastchat.data.formats import ROLES, Turn, place_of
from fastchat.data.html_markdown import html_to_markdown, is_html
from fastchat.data.talk import Talk, unrolled
from fastchat.data.tools import (
    Item,
    Tally,
    add_flag,
    add_in_file,
    add_out_file,
    add_range,
    chosen_items,
    run_tool,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import DataError, SettingsError

_DEBUG_ITEMS = 1000


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("clean_sharegpt", "Cleans conversations that were saved from web pages.")
    add_in_file(made)
    add_out_file(made, "sharegpt_clean.json")
    add_range(made)
    words = "text file, one word or phrase a line: samples that hold one of them are dropped"
    add_flag(made, "--drop-words", metavar="FILE", help=words)
    few = f"read no more than the first {_DEBUG_ITEMS} samples of the range"
    add_flag(made, "--debug", action="store_true", help=few)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read.
        SettingsError: the list of words cannot be read, or the output not be written.
    """
    check_out_file(args.out_file)
    cleaner = Cleaner(_read_words(args.drop_words) if args.drop_words else [])
    items = chosen_items(args)
    if args.debug:
        items = islice(items, _DEBUG_ITEMS)
    write_items(args.out_file, cleaner.clean(args.in_file, items))
    print(f"{cleaner.tally} -> {args.out_file}")


class Cleaner:
    """Cleans samples one after the other, and counts.

    Args:
        words: samples that hold one of these, in any case, are dropped.

    Attributes:
        tally: the counts.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.tally = Tally()
        self._words = [word.casefold() for word in words]
        self._seen: set[tuple[str, str]] = set()

    def clean(self, file: str, items: Iterator[tuple[int, Item]]) -> Iterator[Item]:
        """The samples that are kept, cleaned; `items` are numbered from 1."""
        for number, item in items:
            try:
                yield self._cleaned(Talk.of(item, place_of(file, number, item)))
            except _Dropped as dropped:
                self.tally.drop(str(dropped))
            except DataError:
                self.tally.drop("not as training reads them")
            else:
                self.tally.keep()

    def _cleaned(self, talk: Talk) -> Item:
        system, rounds = talk.rounds()
        if not rounds:
            raise _Dropped("too short")
        given = unrolled(rounds)
        turns = [_markdown(turn) for turn in given]
        if not all(turn.text.strip() for turn in turns):
            raise _Dropped("with an empty turn")
        everything = "\n".join(turn.text for turn in system + turns).casefold()
        if any(word in everything for word in self._words):
            raise _Dropped("with a word that is not wanted")
        beginning = (turns[0].text, turns[1].text)
        if beginning in self._seen:
            raise _Dropped("seen before")
        self._seen.add(beginning)
        changed = sum(old.text != new.text for old, new in zip(given, turns, strict=True))
        if changed:
            self.tally.note("turns of HTML made into Markdown", changed)
        return talk.with_turns(system + turns)


class _Dropped(Exception):  # noqa: N818 - no error: a sample's way out
    """Why a sample is dropped."""


def _markdown(turn: Turn) -> Turn:
    if not is_html(turn.text, answer=ROLES[turn.role] == "assistant"):
        return turn
    return turn._replace(text=html_to_markdown(turn.text))


def _read_words(path: str) -> list[str]:
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--drop-words {path} cannot be read: {error}.",
            hint="It is a UTF-8 text file with one word or phrase a line.",
            param="--drop-words",
        ) from None
    return [line.strip() for line in lines if line.strip()]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
