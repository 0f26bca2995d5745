"""How well a model foretells held-out answers: loss and perplexity, without a judge.

fastchat eval perplexity --model-path MODEL --data held-out.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.entry import run_entry
from fastchat.errors import DataError
from fastchat.flag_types import at_least_one
from fastchat.llm_judge.gen_model_answer import add_loading_flags

if TYPE_CHECKING:
    from fastchat.data.rows import Row
    from fastchat.engine.base import Engine
    from fastchat.engine.served import ServedModel


@dataclass(slots=True)
class Surprise:
    """How likely a model found answers.

    Attributes:
        answers: how many were read, each exactly as it is served.
        too_long: answers that do not fit the model's context with their question.
        tokens: of the answers, their ends included.
        nats: minus the sum of the tokens' natural-log probabilities.
    """

    answers: int = 0
    too_long: int = 0
    tokens: int = 0
    nats: float = 0.0

    @property
    def loss(self) -> float:
        """Mean over tokens, as training reports it."""
        return self.nats / self.tokens

    def hear(self, row: Row, logprobs: Sequence[float | None]) -> None:
        """Takes in an answer: one log-probability for each token of its row."""
        from fastchat.data.rows import IGNORED

        self.answers += 1
        for label, logprob in zip(row.labels, logprobs, strict=True):
            if label != IGNORED:
                assert logprob is not None
                self.tokens += 1
                self.nats -= logprob

    def summary(self) -> dict[str, float]:
        """The figures by name."""
        return asdict(self) | {"loss": self.loss, "perplexity": math.exp(self.loss)}


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat eval perplexity",
        description="Says how likely a model finds the answers of held-out conversations.",
    )
    add = found.add_argument
    add("--model-path", required=True, help="a model folder, or a name on the model hub")
    add("--data", type=Path, required=True, metavar="FILE", help="any file that training reads")
    add("--first-n", type=at_least_one, metavar="N", help="only the first N conversations")
    add("--json", action="store_true", help="the figures as one JSON object")
    add_loading_flags(found)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints loss and perplexity; exits with 1 if an answer could not be read."""
    args = parser().parse_args(argv)

    from fastchat.data.reader import read_samples
    from fastchat.data.rows import LossMode, RowBuilder
    from fastchat.engine.from_flags import load_model

    samples = read_samples(args.data)[: args.first_n]
    served = load_model(args)
    longest = served.engine.context_length - 1  # an engine always writes a token
    built = RowBuilder(served.chat, LossMode.SPLIT_EXAMPLE, longest).rows(samples)
    rows = [row for of_sample in built for row in of_sample]
    found = Surprise(too_long=rows.count(None))
    status = asyncio.run(_read(served, [row for row in rows if row is not None], found, args))
    if not found.tokens:
        raise DataError(f"{args.data} has no answer that fits the model's context.")
    figures = found.summary()
    if args.json:
        print(json.dumps(figures))
    else:
        note = f", {found.too_long} left out: too long" if found.too_long else ""
        print(f"{found.answers} answers, {found.tokens} tokens{note}")
        print(f"loss {figures['loss']:.4f}, perplexity {figures['perplexity']:.3f}")
    sys.exit(status)


async def _read(
    served: ServedModel, rows: Sequence[Row], found: Surprise, args: argparse.Namespace
) -> int:
    from fastchat.llm_judge.asking import Job, run_jobs

    def job(row: Row) -> Job:
        async def run() -> None:
            found.hear(row, await _logprobs(served.engine, row))

        return Job(f"an answer of {row.sample_id}", run)

    try:
        outcome = await run_jobs(list(map(job, rows)), args.max_num_seqs, "answers")
    finally:
        await served.engine.close()
    return outcome.tell("answers")


async def _logprobs(engine: Engine, row: Row) -> list[float | None]:
    from fastchat.engine.base import GenerationRequest, SamplingParams

    sampling = SamplingParams(temperature=0.0, max_new_tokens=1, prompt_logprobs=0)
    found: list[float | None] = []
    async with aclosing(engine.generate(GenerationRequest(row.input_ids, sampling))) as events:
        async for event in events:
            found += [each.logprob for each in event.prompt_logprobs]
    return found


if __name__ == "__main__":
    run_entry(main)
