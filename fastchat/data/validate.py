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
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from fastchat.data.reader import read_samples
from fastchat.data.rows import IGNORED, LossMode, Row
from fastchat.errors import FastChatError

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
        help="ShareGPT conversations as JSON or JSONL",
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
    samples = read_samples(args.data_path)  # before the imports below: errors come at once

    from fastchat.data.dataset import RowDataset, row_builder
    from fastchat.model import load_tokenizer
    from fastchat.model.model_adapter import get_chat_renderer

    tokenizer = load_tokenizer(args.model)
    renderer = get_chat_renderer(tokenizer, args.model)
    builder = row_builder(tokenizer, renderer, LossMode(args.mode), args.max_length)
    rows = RowDataset(samples, builder, name=args.data_path)
    wanted = args.rows if args.rows is not None or args.json else 3
    shown = islice(map(rows.row, range(len(rows))), wanted)
    if args.json:
        for row in shown:
            print(json.dumps(describe_row(row, tokenizer), ensure_ascii=False))
    else:
        marks = _COLOUR if sys.stdout.isatty() and "NO_COLOR" not in os.environ else _BRACKETS
        for row in shown:
            print(_picture(row, tokenizer, marks), end="\n\n")
    print(rows.stats, file=sys.stderr if args.json else sys.stdout)
    sys.stdout.flush()


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
