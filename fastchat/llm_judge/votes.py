"""Votes of judges, human or not, on the same pairs of answers, and how far they agree. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from fastchat.errors import DataError
from fastchat.llm_judge.records import Record
from fastchat.llm_judge.scores import pair_winner

Pair = tuple[Any, ...]
"""What is voted on: question, turn, and two models in the order of their names."""

_MIRRORED = {"model_a": "model_b", "model_b": "model_a"}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many pairs of votes agree."""

    agreeing: int
    total: int

    @property
    def ratio(self) -> float | None:
        """None without votes."""
        return self.agreeing / self.total if self.total else None


def judge_name(judge: Any) -> str:
    """By which name a judge is asked for: human, author, gpt4-pair, or NAME-pair."""
    if isinstance(judge, list):
        model = "gpt4" if judge[0] == "gpt-4" else judge[0]
        return f"{model}-{str(judge[1]).partition('-')[0]}"
    return {"expert": "human", "author": "author"}.get(str(judge).partition("_")[0], str(judge))


def votes(records: Iterable[Record]) -> dict[Pair, dict[str, list[str]]]:
    """Votes by what is voted on and by judge: model_a, model_b or tie.

    Reads human votes (model_a, model_b, winner) and what gen_judgment writes for pairs.

    Raises:
        DataError: a record is neither.
    """
    found: dict[Pair, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    own: dict[tuple[Pair, str], str] = {}
    for record in records:
        try:
            name, turn = judge_name(record["judge"]), record["turn"]
            if "g1_winner" in record:
                a, b = record["model_1"], record["model_2"]
                won = pair_winner(record).replace("_1", "_a").replace("_2", "_b")
            else:
                a, b, won = record["model_a"], record["model_b"], str(record["winner"])
            question = record["question_id"]
        except (KeyError, IndexError) as error:
            raise DataError(
                f"A vote on question {record.get('question_id')!r} has no {error}.",
                hint="A vote has question_id, turn, judge, winner and two models.",
            ) from error
        if a > b:
            a, b, won = b, a, _MIRRORED.get(won, won)
        vote = "tie" if "tie" in won else won
        if vote == "error":
            continue
        pair = (question, turn, a, b)
        if "g1_winner" in record:
            own[pair, name] = vote  # a judge that was asked again: the last verdict counts
        else:
            found[pair][name].append(vote)
    for (pair, name), vote in own.items():
        found[pair][name].append(vote)
    return found


def agreement(
    cast: Mapping[Pair, Mapping[str, Sequence[str]]],
    judges: tuple[str, str],
    turn: int,
    *,
    ties: bool,
) -> Agreement:
    """How far two judges agree on a turn; twice the same judge: its votes among themselves."""
    agreeing = total = 0
    for pair, by_judge in cast.items():
        if pair[1] != turn:
            continue
        first, second = (
            [vote for vote in by_judge.get(judge, ()) if ties or vote != "tie"] for judge in judges
        )
        both = combinations(first, 2) if judges[0] == judges[1] else product(first, second)
        for one, other in both:
            total += 1
            agreeing += one == other
    return Agreement(agreeing, total)
