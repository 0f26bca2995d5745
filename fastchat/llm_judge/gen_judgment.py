r"""Has a judge model mark answers, alone or two by two.

python3 -m fastchat.llm_judge.gen_judgment --model-list yuan2 --judge-model judge \
    --openai-api-base http://localhost:8000/v1 --parallel 4
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one
from fastchat.llm_judge.api_model import ApiModel, add_server_flags, check_server
from fastchat.llm_judge.bench import Bench
from fastchat.llm_judge.flags import bench_of, judge_parser
from fastchat.llm_judge.judge_prompts import prompt_file, read_prompts
from fastchat.llm_judge.judging import MAX_TOKENS, judge_all
from fastchat.llm_judge.matches import MODES, Match, Material, Mode, matches, sides, still_to_make
from fastchat.llm_judge.records import read_records

BASELINE = "gpt-3.5-turbo"


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = judge_parser("gen_judgment", "Has a judge model mark answers.")
    add = found.add_argument
    prompts = "judge prompts (default: data/judge_prompts.jsonl, else the packaged ones)"
    add("--judge-file", type=Path, metavar="FILE", help=prompts)
    add("--judge-model", default="gpt-4", help="the judge's name on the server")
    add("--baseline-model", default=BASELINE, help="what others are compared with")
    add("--mode", choices=MODES, default="single", help="(default: %(default)s)")
    add("--model-list", nargs="+", metavar="MODEL", help="all that have answers, if unset")
    add("--parallel", type=at_least_one, default=1, help="calls at once")
    add("--first-n", type=at_least_one, metavar="N", help="only the first N questions")
    add("--yes", action="store_true", help="do not ask before calling the judge")
    add_server_flags(found)
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of the judge does.

    Attributes:
        wanted: all judgments.
        left: those that are not there yet.
        path: where they are stored.
    """

    bench: Bench
    mode: Mode
    models: Sequence[str]
    baseline: str | None
    questions: int
    wanted: Sequence[Match]
    left: Sequence[Match]
    path: Path
    references: Path | None

    @property
    def calls(self) -> int:
        """How often the judge is asked."""
        return sum(match.calls for match in self.left)

    def __str__(self) -> str:
        """What a person is told before it begins."""
        lines = {
            "bench": f"{self.bench.name}, {self.questions} questions",
            "mode": self.mode,
            "models": ", ".join(self.models),
            "baseline": self.baseline or "none",
            "references": str(self.references or "the questions' own"),
            "judgments": f"{len(self.wanted)}, {len(self.left)} of them to make:"
            f" {self.calls} calls",
            "file": str(self.path),
        }
        return "\n".join(f"{name + ':':<12} {value}" for name, value in lines.items())


def plan(args: argparse.Namespace) -> Plan:
    """What the flags ask for.

    Raises:
        SettingsError: there are no answers to judge.
        DataError: answers or references are missing, or a file cannot be used.
    """
    bench = bench_of(args)
    questions = bench.questions()[: args.first_n]
    models = args.model_list or bench.models()
    if not models:
        raise SettingsError(
            f"There are no answers to judge in {bench.folder / 'model_answer'}.",
            hint="gen_model_answer and gen_api_answer write them.",
        )
    baseline = args.baseline_model if args.mode == "pairwise-baseline" else None
    groups = sides(args.mode, models, args.baseline_model)
    if not groups:
        raise SettingsError(f"--mode {args.mode} needs two models; there is {models[0]}.")
    names = {name for group in groups for name in group}
    material = Material(
        questions,
        {name: bench.answers(name) for name in sorted(names)},
        bench.references(args.judge_model, questions),
        read_prompts(prompt_file(args.judge_file)),
    )
    path = bench.judgment_file(args.judge_model, "single" if args.mode == "single" else "pair")
    wanted = matches(material, groups)
    return Plan(
        bench=bench,
        mode=args.mode,
        models=models,
        baseline=baseline,
        questions=len(questions),
        wanted=wanted,
        left=still_to_make(wanted, read_records(path)),
        path=path,
        references=bench.reference_file(args.judge_model),
    )


def confirm(question: str) -> None:
    """Waits for Enter.

    Raises:
        SettingsError: nobody is there to press it.
    """
    print(question, end=" ", flush=True)
    if not sys.stdin.readline():
        print()
        raise SettingsError("Nobody pressed Enter: the input has ended.", hint="Add --yes.")


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the judgments that are missing; exits with 1 if some could not be made."""
    args = parser().parse_args(argv)
    found = plan(args)
    print(f"{'judge:':<12} {args.judge_model} at {args.openai_api_base}\n{found}")
    if not found.left:
        return
    check_server(args.openai_api_base, args.api_key)
    if not args.yes:
        confirm("Press Enter to begin, Ctrl-C to leave.")
    sys.exit(judge(args, found))


def judge(args: argparse.Namespace, found: Plan) -> int:
    """Makes the judgments that are missing; returns the exit status."""

    async def run() -> int:
        async with ApiModel(
            args.openai_api_base, args.api_key, args.judge_model, max_tokens=MAX_TOKENS
        ) as model:
            outcome = await judge_all(
                model, args.judge_model, found.left, found.path, args.parallel
            )
        return outcome.tell("judgments")

    return asyncio.run(run())


if __name__ == "__main__":
    run_entry(main)
