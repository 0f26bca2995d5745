"""Shows what a judge found: scores, or win rates, with 95 % intervals.

python3 -m fastchat.llm_judge.show_result --judge-model judge
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.entry import run_entry
from fastchat.errors import DataError, SettingsError
from fastchat.flag_types import at_least_one
from fastchat.llm_judge.bench import Bench
from fastchat.llm_judge.flags import bench_of, judge_parser
from fastchat.llm_judge.gen_judgment import BASELINE
from fastchat.llm_judge.matches import MODES
from fastchat.llm_judge.records import read_records

if TYPE_CHECKING:
    from fastchat.llm_judge.scores import Point


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = judge_parser("show_result", "Shows what a judge found.")
    add = found.add_argument
    add("--input-file", type=Path, metavar="FILE", help="in place of data/BENCH/model_judgment")
    add("--judge-model", default="gpt-4")
    add("--baseline-model", default=BASELINE)
    add("--model-list", nargs="+", metavar="MODEL", help="only these models")
    add("--mode", choices=MODES, default="single", help="(default: %(default)s)")
    add("--by-category", action="store_true", help="each category's values too")
    add("--num-bootstrap", type=at_least_one, default=1000, help="rounds for the intervals")
    add("--seed", type=int, default=0, help="of the resampling")
    add("--json", action="store_true", help="one JSON object a model and line")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the results."""
    args = parser().parse_args(argv)
    print(results(args))


def results(args: argparse.Namespace) -> str:
    """The results as text.

    Raises:
        SettingsError: there are no such judgments.
        DataError: the file cannot be used.
    """
    from fastchat.llm_judge.scores import scored
    from fastchat.llm_judge.tables import score_table, win_table

    single, bench = args.mode == "single", bench_of(args)
    path = args.input_file or bench.judgment_file(args.judge_model, "single" if single else "pair")
    points = _points(args, path)
    rows = scored(points, rounds=args.num_bootstrap, seed=args.seed)
    if args.json:
        return "\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    shown = [f"Judgments: {path}", "", score_table(rows) if single else win_table(rows)]
    if args.by_category:
        shown += ["", _categories(points, bench, rates=not single)]
    return "\n".join(shown)


def _points(args: argparse.Namespace, path: Path) -> list[Point]:
    from fastchat.llm_judge.scores import pair_points, single_points

    if not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.jsonl"))) or "nothing"
        raise SettingsError(
            f"There are no judgments in {path}; in that folder there is {there}.",
            hint="gen_judgment writes them; --judge-model and --mode say which to show.",
        )
    records = read_records(path)
    if args.mode == "single":
        points = single_points(records)
    elif args.mode == "pairwise-all":
        points = pair_points(records)
    else:
        points = pair_points(records, args.baseline_model)
        points = [point for point in points if point.model != args.baseline_model]
    models = {point.model for point in points}
    if args.model_list:
        points = [point for point in points if point.model in args.model_list]
    if not points:
        raise DataError(
            f"{path} holds nothing to show for --mode {args.mode}; its models are"
            f" {', '.join(sorted(models)) or 'none'}.",
            hint="Check --model-list and --baseline-model.",
        )
    return points


def _categories(points: Iterable[Point], bench: Bench, *, rates: bool) -> str:
    from fastchat.llm_judge.scores import scored
    from fastchat.llm_judge.tables import category_table

    category = {question.question_id: question.category for question in bench.questions()}
    groups: dict[str, list[Point]] = {name: [] for name in category.values()}
    for point in points:
        groups.setdefault(category.get(point.question_id, "others"), []).append(point)
    table = {name: scored(of, rounds=1) for name, of in groups.items() if of}
    return category_table(table, rates=rates)


if __name__ == "__main__":
    run_entry(main)
