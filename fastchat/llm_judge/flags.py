"""Flags that several commands of the judge share. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastchat.flag_types import natural
from fastchat.llm_judge.bench import Bench, default_bench
from fastchat.llm_judge.questions import Question, chosen


def judge_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for `fastchat.llm_judge.NAME`, with --bench-name."""
    found = argparse.ArgumentParser(prog=f"fastchat.llm_judge.{name}", description=description)
    add_bench(found)
    return found


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds --bench-name."""
    parser.add_argument(
        "--bench-name",
        metavar="NAME",
        help="questions in data/NAME, or a packaged set: yuan_bench, yuan_bench_zh (default:"
        " mt_bench if there is data/mt_bench, else yuan_bench)",
    )


def bench_of(args: argparse.Namespace) -> Bench:
    """The bench that --bench-name chooses."""
    return Bench(args.bench_name or default_bench())


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Adds --question-begin, --question-end and --answer-file."""
    add = parser.add_argument
    add("--question-begin", type=natural, metavar="N", help="first question, counted from 0")
    add("--question-end", type=natural, metavar="N", help="question to stop before")
    add("--answer-file", type=Path, metavar="FILE", help="in place of data/BENCH/model_answer")


def chosen_questions(args: argparse.Namespace, bench: Bench) -> list[Question]:
    """The questions that the flags choose.

    Raises:
        SettingsError: there is no such bench, or none of its questions is chosen.
    """
    return chosen(bench.questions(), args.question_begin, args.question_end)
