"""Shows what a data file teaches, exactly as training will see it.

    python -m fastchat.data.validate --model-name-or-path MODEL --data-path FILE

prints the first rows with the learned text in colour (between ⟦ and ⟧ where the output is
no terminal) and what became of all samples. With `--json` every row is one JSON object on
a line of its own: id, input_ids, labels, text and trained_text, the learned stretches.
Loads the tokenizer only, never a model's weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Any

from fastchat.data.reader import iter_samples
from fastchat.data.rows import IGNORED, LossMode, Row, RowBuilder, RowStats
from fastchat.data.sample import Sample
from fastchat.errors import DataError, FastChatError

_COLOUR, _BRACKETS = ("\x1b[1;32m", "\x1b[0m"), ("⟦", "⟧")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # the reader of the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.data.validate",
        description="Shows what a data file teaches, as training will see it.",
    )
    parser.add_argument(
        "--model-name-or-path",
        "--model_name_or_path",
        "--model",
        dest="model",
        required=True,
        help="folder of the model to be trained; its tokenizer and chat template are used",
    )
    parser.add_argument(
        "--data-path",
        "--data_path",
        required=True,
        help="conversations as JSON, JSONL or Parquet",
    )
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in LossMode],
        default=LossMode.SPLIT_EXAMPLE.value,
        help="which answers are learned (default: %(default)s)",
    )
    parser.add_argument(
        "--model-max-length",
        "--model_max_length",
        "--max-length",
        dest="max_length",
        type=_natural,
        default=512,
        help="longest row in tokens, as in training (default: %(default)s)",
    )
    parser.add_argument(
        "--rows", type=_natural, help="how many rows to print (default: 3; with --json all)"
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _run(args: argparse.Namespace) -> None:
    samples = iter_samples(args.data_path)
    first = next(samples)  # before the imports below: a wrong file is told at once

    from fastchat.data.dataset import row_builder
    from fastchat.model import load_tokenizer
    from fastchat.model.model_adapter import get_chat_renderer

    tokenizer = load_tokenizer(args.model)
    renderer = get_chat_renderer(tokenizer, args.model)
    builder = row_builder(tokenizer, renderer, LossMode(args.mode), args.max_length)
    wanted = args.rows if args.rows is not None or args.json else 3
    marks = _COLOUR if sys.stdout.isatty() and "NO_COLOR" not in os.environ else _BRACKETS
    stats = RowStats()
    rows = _rows(chain((first,), samples), builder, stats)
    for row in islice(rows, wanted):
        if args.json:
            print(json.dumps(describe_row(row, tokenizer), ensure_ascii=False))
        else:
            print(_picture(row, tokenizer, marks), end="\n\n")
    deque(rows, maxlen=0)  # the rest is only counted
    print(stats, file=sys.stderr if args.json else sys.stdout)
    sys.stdout.flush()
    if not stats.rows:
        raise DataError(
            f"{args.data_path} holds nothing to learn.",
            hint="Raise --model-max-length, or check that 'gpt' turns answer 'human' ones.",
        )


def _rows(samples: Iterable[Sample], builder: RowBuilder, stats: RowStats) -> Iterator[Row]:
    """The rows of samples, counted as training would count them."""
    from fastchat.data.building import build_trees

    for _, rows, _ in build_trees(builder, samples, stats):
        yield from rows


def describe_row(row: Row, tokenizer: Any) -> dict[str, Any]:
    """A row as the JSON object that the tool prints."""
    parts = list(_parts(row, tokenizer))
    return {
        "id": row.sample_id,
        "input_ids": row.input_ids,
        "labels": row.labels,
        "text": "".join(text for _, text in parts),
        "trained_text": [text for learned, text in parts if learned],
    }


def _picture(row: Row, tokenizer: Any, marks: tuple[str, str]) -> str:
    head = f"# {_visible(row.sample_id)}: {len(row.input_ids)} tokens, {row.learned} learned"
    if row.dropped_turns:
        head += f", {row.dropped_turns} oldest turns dropped"
    before, after = marks
    return "\n".join(
        (
            head,
            "".join(
                before + _visible(text) + after if learned else _visible(text)
                for learned, text in _parts(row, tokenizer)
            ),
        )
    )


def _parts(row: Row, tokenizer: Any) -> Iterator[tuple[bool, str]]:
    """A row's text in stretches of (learned, text)."""
    end, known = 0, ""
    for learned, run in groupby(row.labels, key=lambda label: label != IGNORED):
        end += len(list(run))
        # What a token stands for can depend on those before it, so the text is read from
        # the start and only what is new is taken.
        text = tokenizer.decode(row.input_ids[:end], clean_up_tokenization_spaces=False)
        yield learned, text[len(known) :]
        known = text


def _visible(text: str) -> str:
    """Text that is safe to print: control characters other than newline and tab escaped."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


if __name__ == "__main__":
    sys.exit(main())
