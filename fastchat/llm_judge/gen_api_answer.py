r"""Answers a bench's questions with a model behind an OpenAI-compatible URL.

python3 -m fastchat.llm_judge.gen_api_answer --model yuan2 \
    --openai-api-base http://localhost:8000/v1
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from fastchat.entry import run_entry
from fastchat.flag_types import at_least_one
from fastchat.llm_judge.answering import Wishes, answer_all, missing
from fastchat.llm_judge.api_model import ApiModel, add_server_flags, check_server
from fastchat.llm_judge.flags import add_questions, bench_of, chosen_questions, judge_parser


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = judge_parser(
        "gen_api_answer", "Answers a bench's questions with a model behind an API."
    )
    add = found.add_argument
    add("--model", default="gpt-3.5-turbo", help="its name on the server; answers are stored by it")
    add_questions(found)
    add("--num-choices", type=at_least_one, default=1, help="answers to each question")
    add("--force-temperature", type=float, help="in place of each category's temperature")
    add("--max-tokens", type=at_least_one, default=1024, help="tokens of a reply at most")
    add("--parallel", type=at_least_one, default=1, help="questions asked at once")
    add_server_flags(found)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Answers what is not answered yet; exits with 1 if something could not be."""
    sys.exit(answer(parser().parse_args(argv)))


def answer(args: argparse.Namespace) -> int:
    """Answers what is not answered yet; returns the exit status."""
    bench = bench_of(args)
    questions = chosen_questions(args, bench)
    path = args.answer_file or bench.answer_file(args.model)
    left = missing(path, questions, args.num_choices)
    print(
        f"{len(questions)} questions of {bench.name}, {len(left)} to answer by {args.model} at"
        f" {args.openai_api_base}; {path}"
    )
    if not left:
        return 0
    check_server(args.openai_api_base, args.api_key)
    wishes = Wishes(args.model, args.num_choices, args.force_temperature)

    async def run() -> int:
        async with ApiModel(
            args.openai_api_base, args.api_key, args.model, max_tokens=args.max_tokens
        ) as model:
            outcome, cuts = await answer_all(model, left, path, wishes, args.parallel)
        if cuts.count:
            print(f"{cuts.count} replies were cut at --max-tokens or at the end of the context.")
        return outcome.tell("answers")

    return asyncio.run(run())


if __name__ == "__main__":
    run_entry(main)
