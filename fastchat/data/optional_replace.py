"""Breaks up special tokens in texts: `<sep>` becomes `< sep>`, with a blank in it.

    python -m fastchat.data.optional_replace --in-file chat.json --model-name-or-path MODEL

This project's own training and serving take such text for what it is and need no help; other
programs that read the same file may take it for a control token. Special are the tokens that
the tokenizer calls so or that were added to it and, for Yuan2, the `<n>` between turns.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastchat.data.talk import Talk
from fastchat.data.tools import (
    Item,
    add_in_file,
    add_model,
    add_out_file,
    beside,
    load_tokenizer,
    read_items,
    run_tool,
    talks,
    tool_parser,
)
from fastchat.data.writing import check_out_file, write_items
from fastchat.prompt_styles import YUAN2_TURN


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("optional_replace", "Breaks up special tokens in texts with a blank.")
    add_in_file(made)
    add_out_file(made, beside="X_replace.json")
    add_model(made, "folder of the model whose special tokens are meant")
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        CheckpointError: the model has no tokenizer.
        DataError: the file cannot be read, or a sample of it is no conversation.
        SettingsError: the output cannot be written.
    """
    out_file = args.out_file or beside(args.in_file, "replace")
    check_out_file(out_file)
    next(read_items(args.in_file))  # before the tokenizer: a bad file is told at once
    breaker = TokenBreaker(special_tokens(load_tokenizer(args.model_name_or_path)))
    numbered = enumerate(read_items(args.in_file), start=1)
    count = write_items(out_file, _broken_up(talks(args.in_file, numbered), breaker))
    print(f"{count} samples, {breaker.count} special tokens broken up -> {out_file}")


def special_tokens(tokenizer: Any) -> set[str]:
    """The tokens that are no plain text to a tokenizer, and Yuan2's `<n>`."""
    from fastchat.model.tokenization_yuan import YuanTokenizer

    tokens = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    return tokens | {YUAN2_TURN} if isinstance(tokenizer, YuanTokenizer) else tokens


class TokenBreaker:
    """Puts a blank behind the first character of each token that stands in a text.

    Args:
        tokens: the tokens; those of a single character or of white space alone cannot be
            broken up and are left.

    Attributes:
        count: how many have been broken up.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.count = 0
        longest_first = sorted((t for t in tokens if len(t.strip()) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """The text with its tokens broken up."""
        text, found = self._pattern.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        self.count += found
        return text


def _broken_up(numbered: Iterator[Talk], breaker: TokenBreaker) -> Iterator[Item]:
    for talk in numbered:
        item = talk.with_turns([turn._replace(text=breaker(turn.text)) for turn in talk.turns])
        yield item if talk.system is None else {**item, "system": breaker(talk.system)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
