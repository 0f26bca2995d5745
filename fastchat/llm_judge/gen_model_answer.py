"""Answers a bench's questions with a model that is loaded here; all are computed together.

python3 -m fastchat.llm_judge.gen_model_answer --model-path MODEL --model-id yuan2
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.engine_flags import add_engine_args
from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one
from fastchat.llm_judge.flags import add_questions, bench_of, chosen_questions, judge_parser
from fastchat.llm_judge.replicas import Share, run_replicas, share
from fastchat.utils import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from fastchat.engine.served import ServedModel
    from fastchat.llm_judge.answering import Wishes
    from fastchat.llm_judge.questions import Question

MODULE = "fastchat.llm_judge.gen_model_answer"


def add_loading_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how the model is loaded."""
    add = parser.add_argument
    add("--revision", default="main", help="revision on the model hub")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add("--dtype", choices=DTYPES, help="number format of the weights; the checkpoint's if unset")
    add("--num-gpus-per-model", type=at_least_one, default=1, dest="num_gpus", metavar="N")
    add("--max-gpu-memory", help="weights per GPU at most, such as 13GiB")
    add("--load-8bit", action="store_true", help="hold the weights as 8-bit integers")
    add_engine_args(parser)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = judge_parser("gen_model_answer", "Answers a bench's questions with a loaded model.")
    add = found.add_argument
    add("--model-path", required=True, help="a model folder, or a name on the model hub")
    add("--model-id", required=True, help="name under which the answers are stored")
    add_questions(found)
    add("--max-new-token", type=at_least_one, default=1024, help="tokens of a reply at most")
    add("--num-choices", type=at_least_one, default=1, help="answers to each question")
    add(
        "--num-gpus-total",
        type=at_least_one,
        default=1,
        metavar="N",
        help="more than --num-gpus-per-model: as many copies of the model share the questions",
    )
    add("--share", type=share, default=Share(), help=argparse.SUPPRESS)
    add_loading_flags(found)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Answers what is not answered yet; exits with 1 if something could not be."""
    args = parser().parse_args(argv)
    sys.exit(answer(args, sys.argv[1:] if argv is None else list(argv)))


def answer(args: argparse.Namespace, flags: Sequence[str]) -> int:
    """Answers what is not answered yet.

    Args:
        args: the parsed flags.
        flags: the same as they were given, for copies of this process.

    Returns:
        The exit status: 1 if something could not be answered.
    """
    from fastchat.llm_judge.answering import Wishes, missing

    bench = bench_of(args)
    questions = chosen_questions(args, bench)
    path = args.answer_file or bench.answer_file(args.model_id)
    left = missing(path, args.share.of(questions), args.num_choices)
    if args.share.alone:
        print(f"{len(questions)} questions of {bench.name}, {len(left)} to answer; {path}")
    if not left:
        return 0
    copies = args.num_gpus_total // args.num_gpus
    if copies < 1:
        raise SettingsError(
            f"--num-gpus-per-model {args.num_gpus} is more than --num-gpus-total"
            f" {args.num_gpus_total}."
        )
    if copies > 1 and args.share.alone:
        return run_replicas(MODULE, flags, copies, args.num_gpus)

    from fastchat.engine.from_flags import load_model

    wishes = Wishes(args.model_id, args.num_choices)
    return asyncio.run(_answer(load_model(args), args, left, path, wishes))


async def _answer(
    served: ServedModel,
    args: argparse.Namespace,
    questions: Sequence[Question],
    path: Path,
    wishes: Wishes,
) -> int:
    from fastchat.llm_judge.answering import answer_all
    from fastchat.llm_judge.local_model import LocalModel

    model = LocalModel(served, max_new_tokens=args.max_new_token)
    try:
        outcome, cuts = await answer_all(model, questions, path, wishes, 2 * args.max_num_seqs)
    finally:
        await served.engine.close()
    if cuts.count:
        print(f"{cuts.count} replies were cut at --max-new-token or at the end of the context.")
    return outcome.tell("answers")


if __name__ == "__main__":
    run_entry(main)
