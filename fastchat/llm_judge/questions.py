"""Questions of a bench: what they hold, how warm their answers are, which need a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.errors import DataError, SettingsError
from fastchat.llm_judge.records import Record, read_records

TEMPERATURES: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
OTHER_TEMPERATURE = 0.7
WITH_REFERENCE = frozenset(("math", "reasoning", "coding"))
"""Categories whose answers are right or wrong: a judge is shown a reference answer."""

QuestionId = int | str


@dataclass(frozen=True, slots=True)
class Question:
    """A question of one or more turns.

    Attributes:
        question_id: a number, as a rule.
        turns: what the user says, turn by turn.
        reference: a right answer to each turn, where the set holds one.
        required_temperature: in place of the category's.
    """

    question_id: QuestionId
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()
    required_temperature: float | None = None

    @property
    def temperature(self) -> float:
        """How freely an answer is sampled; 0 takes the likeliest token."""
        if self.required_temperature is not None:
            return self.required_temperature
        return TEMPERATURES.get(self.category, OTHER_TEMPERATURE)

    @property
    def needs_reference(self) -> bool:
        """Whether a judge has to be shown a reference answer."""
        return self.category in WITH_REFERENCE


def read_questions(path: Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises:
        DataError: the file is missing or empty, or a question is incomplete; names it.
    """
    questions = [_question(path, record) for record in read_records(path)]
    if not questions:
        raise DataError(f"{path} holds no questions.")
    if len({question.question_id for question in questions}) < len(questions):
        raise DataError(f"{path} holds several questions of the same question_id.")
    return questions


def chosen(questions: Sequence[Question], begin: int | None, end: int | None) -> list[Question]:
    """The questions from one place to another, counted from 0; the last one left out.

    Raises:
        SettingsError: there are none.
    """
    found = list(questions[begin:end])
    if not found:
        raise SettingsError(
            f"--question-begin {begin} and --question-end {end} choose none of the"
            f" {len(questions)} questions.",
            hint="They are places in the file, counted from 0.",
        )
    return found


def _question(path: Path, record: Record) -> Question:
    name = f"Question {record.get('question_id')!r} of {path}"
    identity, category = record.get("question_id"), record.get("category", "")
    if not isinstance(identity, int | str):
        raise DataError(f"{name} needs a question_id that is a number or a string.")
    temperature = record.get("required_temperature")
    if temperature is not None and not isinstance(temperature, int | float):
        raise DataError(f"{name}: required_temperature is {temperature!r}; a number is needed.")
    turns = _texts(name, "turns", record.get("turns"))
    if not turns:
        raise DataError(f"{name} has no turns.")
    reference = _texts(name, "reference", record.get("reference") or [])
    return Question(identity, str(category), turns, reference, temperature)


def _texts(name: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{name}: {key} is {value!r}; a list of strings is needed.")
    return tuple(value)


def by_id(question_id: QuestionId) -> tuple[int, str]:
    """The order of question ids: numbers before names, by size."""
    if isinstance(question_id, int):
        return question_id, ""
    return 1 << 62, question_id
