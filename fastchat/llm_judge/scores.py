"""Scores and win rates from judgments, with intervals. Pure functions.

An interval comes from resampled questions: the turns of a question, and its judgments against
several models, are no independent evidence and stay together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastchat.errors import DataError
from fastchat.llm_judge.questions import QuestionId
from fastchat.llm_judge.records import Record

_SIDES = ("model_1", "model_2")


@dataclass(frozen=True, slots=True)
class Point:
    """What one judgment says of one model.

    Attributes:
        value: a score; or 1 for a win, 0.5 for a tie, 0 for a loss; None if the judge's
            verdict could not be read.
    """

    question_id: QuestionId
    model: str
    turn: int
    value: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's result.

    Attributes:
        value: mean over all judgments; None if none could be read.
        low, high: its 95 % interval.
        by_turn: mean of each turn.
        counted: judgments that could be read.
        unparsed: and those that could not.
        wins, losses, ties: of comparisons.
    """

    model: str
    value: float | None
    low: float | None
    high: float | None
    by_turn: Mapping[int, float]
    counted: int
    unparsed: int
    wins: int
    losses: int
    ties: int


def single_points(records: Iterable[Record]) -> list[Point]:
    """The scores of a file; of judgments of the same turn the last one counts.

    Raises:
        DataError: a record is no judgment of a single answer.
    """
    last: dict[Any, Point] = {}
    for record in records:
        try:
            point = Point(
                record["question_id"], record["model"], record["turn"], _score(record["score"])
            )
        except KeyError as error:
            raise _no_judgment(record, error) from error
        last[point.question_id, point.model, point.turn] = point
    return list(last.values())


def pair_points(records: Iterable[Record], baseline: str | None = None) -> list[Point]:
    """What comparisons say of both models; of those of the same turn the last one counts.

    A model wins if it wins in both orders; verdicts that differ are a tie.

    Args:
        records: of a file.
        baseline: only comparisons with this model.

    Raises:
        DataError: a record is no comparison.
    """
    last: dict[Any, tuple[Point, Point]] = {}
    for record in records:
        try:
            identity, turn = record["question_id"], record["turn"]
            models = [record[side] for side in _SIDES]
            won = pair_winner(record)
        except KeyError as error:
            raise _no_judgment(record, error) from error
        if baseline is not None and baseline not in models:
            continue
        values = {"model_1": (1.0, 0.0), "model_2": (0.0, 1.0), "tie": (0.5, 0.5)}
        first, second = values.get(won, (None, None))
        last[identity, frozenset(models), turn] = (
            Point(identity, models[0], turn, first),
            Point(identity, models[1], turn, second),
        )
    return [point for points in last.values() for point in points]


def pair_winner(record: Record) -> str:
    """model_1, model_2, tie or error: what the verdicts in both orders come to."""
    first, second = record["g1_winner"], record["g2_winner"]
    if "error" in (first, second):
        return "error"
    return str(first) if first == second else "tie"


def scored(points: Iterable[Point], *, rounds: int = 1000, seed: int = 0) -> list[Scored]:
    """All models, the best first.

    Args:
        points: of all models.
        rounds: how often questions are resampled for the intervals.
        seed: of the resampling.
    """
    by_model: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_model[point.model].append(point)
    found = [_scored(model, mine, rounds, seed) for model, mine in by_model.items()]
    return sorted(found, key=lambda each: (each.value is None, -(each.value or 0.0), each.model))


def _scored(model: str, points: Sequence[Point], rounds: int, seed: int) -> Scored:
    values = [point.value for point in points if point.value is not None]
    turns: dict[int, list[float]] = defaultdict(list)
    for point in points:
        if point.value is not None:
            turns[point.turn].append(point.value)
    low, high = interval(points, rounds=rounds, seed=seed)
    return Scored(
        model=model,
        value=sum(values) / len(values) if values else None,
        low=low,
        high=high,
        by_turn={turn: sum(of) / len(of) for turn, of in sorted(turns.items())},
        counted=len(values),
        unparsed=len(points) - len(values),
        wins=values.count(1.0),
        losses=values.count(0.0),
        ties=values.count(0.5),
    )


def interval(
    points: Iterable[Point], *, rounds: int, seed: int
) -> tuple[float | None, float | None]:
    """Where 95 % of the means of resampled questions lie; None for no points."""
    by_question: dict[QuestionId, list[float]] = defaultdict(list)
    for point in points:
        if point.value is not None:
            by_question[point.question_id].append(point.value)
    if not by_question:
        return None, None
    sums = np.array([sum(values) for values in by_question.values()])
    counts = np.array([len(values) for values in by_question.values()])
    drawn = np.random.default_rng(seed).integers(len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _score(value: Any) -> float | None:
    read = isinstance(value, int | float) and value >= 0
    return float(value) if read else None


def _no_judgment(record: Record, error: KeyError) -> DataError:
    return DataError(
        f"A record of question {record.get('question_id')!r} is no judgment of the kind that is"
        f" wanted: it has no {error}.",
        hint="--mode says which kind a file holds.",
    )
