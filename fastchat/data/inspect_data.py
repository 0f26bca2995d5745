"""Prints conversations to be read; on a terminal one at a time.

    python -m fastchat.data.inspect_data --in-file chat.json --random-n 3

On a terminal Enter goes on and q stops. Control characters are shown, not obeyed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Iterator, Sequence

from fastchat.data.talk import Talk
from fastchat.data.tools import (
    add_flag,
    add_in_file,
    add_range,
    chosen_items,
    run_tool,
    talks,
    tool_parser,
)
from fastchat.flag_types import at_least_one


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("inspect_data", "Prints conversations to be read.")
    add_in_file(made)
    add_range(made)
    what = "print this many, drawn at random, in place of all"
    add_flag(made, "--random-n", type=at_least_one, metavar="N", help=what)
    add_flag(made, "--seed", type=int, metavar="N", help="of the draw; another each time if unset")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        DataError: the file cannot be read, or a sample of it is no conversation.
    """
    numbered = chosen_items(args)
    if args.random_n:
        items = list(numbered)
        numbered = iter(random.Random(args.seed).sample(items, min(args.random_n, len(items))))
    pictures = map(picture, talks(args.in_file, numbered))
    paged = sys.stdin.isatty() and sys.stdout.isatty()
    for text in _one_at_a_time(pictures) if paged else pictures:
        print(text)


def picture(talk: Talk) -> str:
    """A conversation as the tool prints it."""
    lines = ["=" * 40, f"no: {talk.place.number - 1}, id: {_visible(talk.place.id)}"]
    if talk.system is not None:
        lines += ["system:", _visible(talk.system)]
    for turn in talk.turns:
        lines += [f"{turn.role}:", _visible(turn.text)]
    return "\n".join(lines)


def _one_at_a_time(pictures: Iterable[str]) -> Iterator[str]:
    for text in pictures:
        yield text
        try:
            if input("[Enter: next, q: stop] ").strip().lower() == "q":
                return
        except EOFError:
            return


def _visible(text: str) -> str:
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
