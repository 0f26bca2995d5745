"""Cuts conversations into pieces that fit the model, between a round and the next.

    python -m fastchat.data.split_long_conversation --in-file chat.json --model-name-or-path MODEL

A turn counts as its tokens and six more, as FastChat counts it. A round is never cut: one
that is too long by itself is left out, and the next piece begins behind it. A system text
stands before each piece. A piece's id is the conversation's and the place of its first turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from fastchat.data.formats import Turn
from fastchat.data.talk import Round, Talk, unrolled
from fastchat.data.tools import (
    Item,
    Tally,
    add_flag,
    add_in_file,
    add_model,
    add_out_file,
    add_range,
    chosen_items,
    load_tokenizer,
    run_tool,
    talks,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.errors import DataError
from fastchat.flag_types import at_least_one

_TURN_TOKENS = 6  # on top of a turn's text
_BATCH = 256  # conversations that are tokenized at once

Piece = tuple[int, list[Round]]
"""The place of its first turn, not counting a system turn, and its rounds."""


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("split_long_conversation", "Cuts conversations into pieces that fit.")
    add_in_file(made)
    add_out_file(made, "sharegpt_split.json")
    add_range(made)
    add_model(made, "folder of the model to be trained; its tokenizer counts")
    what = "longest piece, in tokens (default: %(default)s)"
    add_flag(made, "--max-length", type=at_least_one, default=2048, metavar="N", help=what)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        CheckpointError: the model has no tokenizer.
        DataError: the file cannot be read.
        SettingsError: the output cannot be written.
    """
    check_out_file(args.out_file)
    next(chosen_items(args))  # before the tokenizer: a bad file is told at once
    tokenizer = load_tokenizer(args.model_name_or_path)
    tally = Tally()
    numbered = talks(args.in_file, chosen_items(args))
    count = write_items(args.out_file, _pieces(numbered, tokenizer, args.max_length, tally))
    print(f"{tally}; {count} pieces -> {args.out_file}")


def split_rounds(rounds: Sequence[Round], lengths: Sequence[int], room: int) -> list[Piece]:
    """Deals rounds, in order, to as few pieces as they fit in.

    Args:
        rounds: of one conversation.
        lengths: tokens of each.
        room: tokens in a piece.
    """
    pieces: list[Piece] = []
    used = room
    for index, (pair, length) in enumerate(zip(rounds, lengths, strict=True)):
        if length > room:
            used = room  # whatever follows begins a new piece
            continue
        if used + length > room:
            pieces.append((2 * index, []))
            used = 0
        pieces[-1][1].append(pair)
        used += length
    return pieces


def _pieces(
    numbered: Iterator[Talk], tokenizer: Any, max_length: int, tally: Tally
) -> Iterator[Item]:
    while batch := list(islice(numbered, _BATCH)):
        ordered = [parts for talk in batch if (parts := _ordered(talk, tally)) is not None]
        texts = [
            text
            for talk, system, rounds in ordered
            for text in _system_texts(talk, system) + [turn.text for turn in unrolled(rounds)]
        ]
        lengths = iter(_token_counts(tokenizer, texts))
        for talk, system, rounds in ordered:
            used = sum(next(lengths) for _ in _system_texts(talk, system))
            pairs = [next(lengths) + next(lengths) for _ in rounds]
            pieces = split_rounds(rounds, pairs, max_length - used)
            _count(pieces, rounds, tally)
            for start, part in pieces:
                turns = system + unrolled(part)
                yield {**talk.with_turns(turns), "id": f"{talk.place.id}_{start}"}


def _ordered(talk: Talk, tally: Tally) -> tuple[Talk, list[Turn], list[Round]] | None:
    try:
        system, rounds = talk.rounds()
    except DataError:
        tally.drop("with turns out of order")
        return None
    if not rounds:
        tally.drop("without an answer")
        return None
    return talk, system, rounds


def _system_texts(talk: Talk, system: list[Turn]) -> list[str]:
    texts = [turn.text for turn in system]
    field = talk.system
    return texts if field is None else [field, *texts]


def _token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    if not texts:
        return []
    return [len(ids) + _TURN_TOKENS for ids in tokenizer(texts)["input_ids"]]


def _count(pieces: list[Piece], rounds: Sequence[Round], tally: Tally) -> None:
    lost = len(rounds) - sum(len(part) for _, part in pieces)
    if lost:
        tally.note("rounds too long by themselves left out", lost)
    if pieces:
        tally.keep()
    else:
        tally.drop("of which no round fits")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
