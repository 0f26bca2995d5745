"""Which judgments a run consists of, and which of them are there already. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from fastchat.errors import DataError
from fastchat.llm_judge.bench import Answers, first_turns
from fastchat.llm_judge.judge_prompts import JudgePrompt, Kind, fields_of, prompt_for
from fastchat.llm_judge.questions import Question, QuestionId
from fastchat.llm_judge.records import Record

Mode = Literal["single", "pairwise-baseline", "pairwise-all"]
MODES: tuple[Mode, ...] = ("single", "pairwise-baseline", "pairwise-all")
_TURNS = 2
"""Turns that are judged: prompts know of no more."""


@dataclass(frozen=True, slots=True)
class Match:
    """One judgment: a turn of one model's answer, or of two models' answers in both orders.

    Attributes:
        models: one or two.
        user_prompts: what the judge is asked, in each order.
    """

    question_id: QuestionId
    turn: int
    models: tuple[str, ...]
    prompt: JudgePrompt = field(repr=False)
    user_prompts: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """For messages."""
        return f"question {self.question_id}, turn {self.turn}, {' and '.join(self.models)}"

    @property
    def identity(self) -> tuple[Any, ...]:
        """The same for the same judgment, whichever of two models is named first."""
        shown_first = frozenset(zip(self.models, self.user_prompts, strict=True))
        return self.question_id, self.turn, shown_first

    @property
    def calls(self) -> int:
        """How often the judge is asked."""
        return len(self.user_prompts)


def sides(mode: Mode, models: Sequence[str], baseline: str) -> list[tuple[str, ...]]:
    """The models, or the pairs of models, that are judged."""
    if mode == "single":
        return [(model,) for model in models]
    if mode == "pairwise-baseline":
        return [(model, baseline) for model in models if model != baseline]
    return list(combinations(sorted(models), 2))


@dataclass(frozen=True, slots=True)
class Material:
    """What is judged, and with which prompts."""

    questions: Sequence[Question]
    answers: Mapping[str, Answers]
    references: Mapping[QuestionId, Sequence[str]]
    prompts: Mapping[str, JudgePrompt]


def matches(material: Material, groups: Iterable[tuple[str, ...]]) -> list[Match]:
    """All judgments of the models or pairs.

    Raises:
        DataError: a model has no answer to a question, or a prompt is missing.
    """
    return [match for group in groups for match in _of_group(material, group)]


def _of_group(material: Material, models: tuple[str, ...]) -> Iterator[Match]:
    answers = [material.answers[model] for model in models]
    for model, given in zip(models, answers, strict=True):
        _check_complete(model, given, material.questions)
    kind: Kind = "single" if len(models) == 1 else "pairwise"
    for question in material.questions:
        turns = [first_turns(given[question.question_id]) for given in answers]
        reference = material.references.get(question.question_id, ())
        for turn in range(1, min(_TURNS, len(question.turns)) + 1):
            prompt = prompt_for(material.prompts, kind, question, turn)
            orders = [turns] if len(turns) == 1 else [turns, turns[::-1]]
            asked = [prompt.fill(fields_of(question, turn, order, reference)) for order in orders]
            yield Match(question.question_id, turn, models, prompt, tuple(asked))


def _check_complete(model: str, answers: Answers, questions: Sequence[Question]) -> None:
    missing = [
        question.question_id
        for question in questions
        if question.question_id not in answers
        or len(first_turns(answers[question.question_id])) < len(question.turns)
    ]
    if missing:
        raise DataError(
            f"Answers of {model} are missing for questions {', '.join(map(str, missing))}.",
            hint="gen_model_answer and gen_api_answer go on where they stopped.",
        )


def still_to_make(wanted: Sequence[Match], records: Iterable[Record]) -> list[Match]:
    """The matches that no record holds.

    A judgment of an answer that was given anew since, or by another prompt, does not count.
    """
    there = {identity for record in records if (identity := _identity(record)) is not None}
    return [match for match in wanted if match.identity not in there]


def _identity(record: Record) -> tuple[Any, ...] | None:
    """See `Match.identity`."""
    try:
        if "model" in record:
            pairs = [(record["model"], record["user_prompt"])]
        else:
            pairs = [
                (record["model_1"], record["g1_user_prompt"]),
                (record["model_2"], record["g2_user_prompt"]),
            ]
        return record["question_id"], record["turn"], frozenset(pairs)
    except KeyError:
        return None
