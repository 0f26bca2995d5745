"""Evaluates a model in one go: its answers to a bench, a judge's marks, the table.

fastchat eval --model-path MODEL --judge-url http://localhost:8000/v1 --judge-model judge
fastchat eval --url http://localhost:8000/v1 --model yuan2 --judge-model gpt-4
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one
from fastchat.llm_judge import gen_api_answer, gen_judgment, gen_model_answer, show_result
from fastchat.llm_judge.answering import missing
from fastchat.llm_judge.api_model import OPENAI, check_server
from fastchat.llm_judge.flags import add_bench, bench_of
from fastchat.llm_judge.judging import MAX_TOKENS
from fastchat.llm_judge.matches import Mode
from fastchat.llm_judge.questions import Question

_MODES: tuple[Mode, ...] = ("single", "pairwise-baseline")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat eval",
        description="Has a model answer a bench's questions and a judge mark the answers. What"
        " is there already is not done again.",
        epilog="With --model-path, the flags of gen_model_answer that say how a model is loaded"
        " work too, such as --device and --dtype. The steps are commands of their own: fastchat"
        " eval gen_model_answer, gen_api_answer, gen_judgment, show_result, qa_browser,"
        " compute_agreement; fastchat eval perplexity needs no judge.",
    )
    add_bench(found)
    add = found.add_argument_group("the model").add_argument
    add("--model-path", metavar="MODEL", help="load this folder, or name on the model hub")
    add("--model-id", metavar="NAME", help="under which its answers are stored")
    add("--url", help="or ask a server with OpenAI's API, such as http://localhost:8000/v1")
    add("--model", metavar="NAME", help="the model's name on that server")
    add("--api-key", default=os.environ.get("FASTCHAT_API_KEY", ""), help="of that server")
    add("--max-new-token", type=at_least_one, default=1024, help="tokens of an answer at most")
    add("--first-n", type=at_least_one, metavar="N", help="only the first N questions")
    add = found.add_argument_group("the judge").add_argument
    add("--judge-model", metavar="NAME", help="without one the answers are not judged")
    add("--judge-url", default=OPENAI, help="its server (default: %(default)s)")
    add("--judge-api-key", default=os.environ.get("OPENAI_API_KEY", ""), help="of that server")
    add("--judge-file", type=Path, metavar="FILE", help="judge prompts of your own")
    add("--mode", choices=_MODES, default="single", help="(default: %(default)s)")
    add("--baseline-model", metavar="NAME", help="compare with this model's answers")
    add = found.add_argument_group("the run").add_argument
    add("--parallel", type=at_least_one, default=4, help="questions at once, on a server")
    add("--yes", action="store_true", help="do not ask before beginning")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the steps; exits with 1 if something is missing in the end."""
    args, loading = parser().parse_known_args(argv)
    _check(args, loading)
    bench = bench_of(args)
    name = model_name(args)
    questions = bench.questions()[: args.first_n]
    left = missing(bench.answer_file(name), questions, 1)
    print(summary(args, name, questions, left))
    if not args.yes and (left or args.judge_model):
        gen_judgment.confirm("Press Enter to begin, Ctrl-C to leave.")
    status = _answer(args, loading, name, len(questions)) if left else 0
    if status == 0 and args.judge_model:
        status = _judge(args, name)
    sys.exit(status)


def _check(args: argparse.Namespace, loading: Sequence[str]) -> None:
    if (args.model_path is None) == (args.url is None):
        raise SettingsError(
            "Name one model: --model-path to load it, or --url and --model to ask a server."
        )
    if args.url and loading:
        parser().error(f"unrecognized arguments: {' '.join(loading)}")
    if args.url and not args.model:
        raise SettingsError("--url needs --model, the model's name on that server.")
    if args.mode == "pairwise-baseline" and not args.baseline_model:
        raise SettingsError("--mode pairwise-baseline needs --baseline-model.")
    if args.judge_model:
        check_server(args.judge_url, args.judge_api_key, "--judge-url")


def model_name(args: argparse.Namespace) -> str:
    """Under which name the answers are stored."""
    path = args.model_path and Path(args.model_path).resolve().name
    return str(args.model_id or args.model or path)


def summary(
    args: argparse.Namespace, name: str, questions: Sequence[Question], left: Sequence[Question]
) -> str:
    """What is going to be done, and how many calls it takes."""
    bench = bench_of(args)
    turns = sum(len(question.turns) for question in left)
    there = len(questions) - len(left)
    where = f"asked at {args.url}" if args.url else f"loaded from {args.model_path}"
    answers = (
        f"{there} there; {turns} replies to {len(left)} questions to make, of at most"
        f" {args.max_new_token} tokens each"
    )
    lines = [
        f"bench:     {bench.name}, {len(questions)} questions ({bench.question_file})",
        f"model:     {name}, {where}",
        f"answers:   {answers}",
    ]
    if args.judge_model:
        orders = 1 if args.mode == "single" else 2
        calls = orders * sum(min(2, len(question.turns)) for question in questions)
        lines += [
            f"judge:     {args.judge_model} at {args.judge_url}, {args.mode}",
            f"judgments: at most {calls} calls, of at most {MAX_TOKENS} tokens each",
        ]
    else:
        lines.append("judge:     none; --judge-model and --judge-url name one")
    return "\n".join([*lines, f"results:   {bench.folder}"])


def _answer(args: argparse.Namespace, loading: Sequence[str], name: str, count: int) -> int:
    bench = ["--bench-name", bench_of(args).name, "--question-end", str(count)]
    if args.url:
        flags = [
            *bench,
            *("--model", args.model, "--openai-api-base", args.url, "--api-key", args.api_key),
            *("--answer-file", str(bench_of(args).answer_file(name))),
            *("--max-tokens", str(args.max_new_token), "--parallel", str(args.parallel)),
        ]
        return gen_api_answer.answer(gen_api_answer.parser().parse_args(flags))
    flags = [
        *bench,
        *("--model-path", args.model_path, "--model-id", name),
        *("--max-new-token", str(args.max_new_token)),
        *loading,
    ]
    return gen_model_answer.answer(gen_model_answer.parser().parse_args(flags), flags)


def _judge(args: argparse.Namespace, name: str) -> int:
    bench = ["--bench-name", bench_of(args).name, "--judge-model", args.judge_model]
    bench += ["--mode", args.mode]
    if args.baseline_model:
        bench += ["--baseline-model", args.baseline_model]
    flags = [*bench, "--openai-api-base", args.judge_url, "--api-key", args.judge_api_key]
    flags += ["--model-list", name, "--parallel", str(args.parallel)]
    if args.first_n:
        flags += ["--first-n", str(args.first_n)]
    if args.judge_file:
        flags += ["--judge-file", str(args.judge_file)]
    judging = gen_judgment.parser().parse_args(flags)
    plan = gen_judgment.plan(judging)
    status = gen_judgment.judge(judging, plan) if plan.left else 0
    shown = show_result.parser().parse_args([*bench, "--by-category"])
    print("\n" + show_result.results(shown))
    return status


if __name__ == "__main__":
    run_entry(main)
