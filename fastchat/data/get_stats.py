"""Counts the samples, turns and lengths of a data file.

    python -m fastchat.data.get_stats --in-file chat.json --model-name-or-path MODEL

With a model lengths are counted in its tokens, without one in characters. The text of turns
is counted, and nothing that a chat template puts between them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from fastchat.data.reader import iter_samples
from fastchat.data.sample import Sample
from fastchat.data.tools import add_in_file, add_model, load_tokenizer, run_tool, tool_parser

_BATCH = 256  # conversations that are tokenized at once

Measure = Callable[[list[str]], list[int]]
"""Texts -> the length of each."""


@dataclass(slots=True)
class Stats:
    """What a file holds; lengths in the order of the file.

    Attributes:
        systems: number of samples with a system text.
        unanswered: number of samples without an answer; they have no lengths.
        inputs: length of each question.
        outputs: length of each answer.
        conversations: length of each sample, system text included.
        turns: questions and answers of each sample.
    """

    systems: int = 0
    unanswered: int = 0
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    conversations: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def add(self, sample: Sample, lengths: Sequence[int]) -> None:
        """Counts a sample; `lengths` are its messages'."""
        if not lengths:
            self.unanswered += 1
            return
        first = sample.first_question
        self.systems += first
        self.turns.append(len(lengths) - first)
        self.inputs += lengths[first::2]
        self.outputs += lengths[first + 1 :: 2]
        self.conversations.append(sum(lengths))


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    made = tool_parser("get_stats", "Counts the samples, turns and lengths of a data file.")
    add_in_file(made)
    what = "folder of a model, to count its tokens; characters are counted without"
    add_model(made, what, required=False)
    return made


def run(args: argparse.Namespace) -> None:
    """Runs the tool.

    Raises:
        CheckpointError: the model has no tokenizer.
        DataError: the file cannot be read, or a sample of it is not as it should be.
    """
    next(iter_samples(args.in_file))  # before the tokenizer: a bad file is told at once
    model = args.model_name_or_path
    measure = _token_measure(model) if model else _characters
    unit = "tokens" if model else "characters"
    print(table(stats_of(iter_samples(args.in_file), measure), unit))


def stats_of(samples: Iterable[Sample], measure: Measure) -> Stats:
    """Counts samples.

    Args:
        samples: the conversations.
        measure: says how long texts are.
    """
    stats = Stats()
    rest = iter(samples)
    while batch := list(islice(rest, _BATCH)):
        texts = [message["content"] for sample in batch for message in sample.messages]
        lengths = iter(measure(texts))
        for sample in batch:
            stats.add(sample, [next(lengths) for _ in sample.messages])
    return stats


def table(stats: Stats, unit: str) -> str:
    """The counts as the tool prints them."""
    lines = [
        f"samples   {len(stats.turns) + stats.unanswered}",
        f"turns     {sum(stats.turns)}",
        f"{unit:<9} {sum(stats.conversations)}",
    ]
    if stats.systems:
        lines.append(f"{stats.systems} samples have a system text")
    if stats.unanswered:
        lines.append(f"{stats.unanswered} samples have no answer; the lengths are without them")
    if stats.turns:
        names = ("mean", "p50", "p90", "p99", "max")
        lines += ["", f"{'':<22}" + "".join(f"{name:>9}" for name in names)]
        rows = (
            ("turns a sample", stats.turns),
            (f"{unit} a sample", stats.conversations),
            (f"{unit} a question", stats.inputs),
            (f"{unit} an answer", stats.outputs),
        )
        lines += [f"{name:<22}" + _spread(values) for name, values in rows]
    return "\n".join(lines)


def quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least this share of the ordered values do not exceed."""
    return ordered[max(ceil(share * len(ordered)) - 1, 0)]


def _spread(values: Sequence[int]) -> str:
    ordered = sorted(values)
    shares = [quantile(ordered, share) for share in (0.5, 0.9, 0.99, 1.0)]
    return f"{sum(ordered) / len(ordered):>9.1f}" + "".join(f"{value:>9}" for value in shares)


def _characters(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def _token_measure(model: str) -> Measure:
    tokenizer = load_tokenizer(model)

    def tokens(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts)["input_ids"]] if texts else []

    return tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool from the command line; returns the exit status."""
    return run_tool(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
