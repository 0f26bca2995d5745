"""Where a bench's files are: the user's own under `data/`, else the packaged ones.

Results are always written under the working directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fastchat.errors import DataError, SettingsError
from fastchat.llm_judge.questions import Question, QuestionId, by_id, read_questions
from fastchat.llm_judge.records import Record, read_records, settle

DATA = Path("data")
FASTCHATS_BENCH = "mt_bench"
OWN_BENCH = "yuan_bench"
PROMPTS = "judge_prompts.jsonl"

Answers = Mapping[QuestionId, Record]
"""A model's answers by question."""


def packaged() -> Path:
    """The folder of the sets and prompts that come with the package."""
    return Path(str(resources.files("fastchat.llm_judge"))) / "data"


def default_bench() -> str:
    """MT-bench where the user has it under `data/`, else the packaged set."""
    if (DATA / FASTCHATS_BENCH / "question.jsonl").is_file():
        return FASTCHATS_BENCH
    return OWN_BENCH


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench by its name."""

    name: str

    @property
    def folder(self) -> Path:
        """Where results are written."""
        return DATA / self.name

    @property
    def question_file(self) -> Path:
        """The user's questions, else the packaged ones.

        Raises:
            SettingsError: there are neither.
        """
        for root in (DATA, packaged()):
            if (path := root / self.name / "question.jsonl").is_file():
                return path
        known = sorted(path.parent.name for path in packaged().glob("*/question.jsonl"))
        raise SettingsError(
            f"--bench-name {self.name}: there is no {self.folder / 'question.jsonl'}, and no"
            f" packaged set of that name; packaged are {', '.join(known)}.",
            hint="Put your questions there, or name a packaged set.",
            param="--bench-name",
        )

    def questions(self) -> list[Question]:
        """The questions, in the file's order.

        Raises:
            SettingsError: there is no such bench.
            DataError: the file cannot be used.
        """
        return read_questions(self.question_file)

    def answer_file(self, model: str) -> Path:
        """Where a model's answers are."""
        return self.folder / "model_answer" / f"{_file_name(model)}.jsonl"

    def judgment_file(self, judge: str, mode: str) -> Path:
        """Where a judge's judgments are; `mode` is single or pair."""
        return self.folder / "model_judgment" / f"{_file_name(judge)}_{mode}.jsonl"

    def models(self) -> list[str]:
        """The models with answers, by name."""
        return sorted(path.stem for path in (self.folder / "model_answer").glob("*.jsonl"))

    def answers(self, model: str) -> Answers:
        """A model's answers; the last one to a question counts.

        Raises:
            SettingsError: there are none.
            DataError: the file cannot be used.
        """
        path = self.answer_file(model)
        if not path.is_file():
            there = ", ".join(self.models()) or "of no model"
            raise SettingsError(
                f"There are no answers of {model!r}: {path} is missing. Answers there: {there}.",
                hint="gen_model_answer and gen_api_answer write them.",
            )
        return read_answers(path)

    def reference_file(self, judge: str) -> Path | None:
        """The reference answers for a judge: its own, or the only ones that there are."""
        folders = [root / self.name / "reference_answer" for root in (DATA, packaged())]
        for folder in folders:
            if (path := folder / f"{_file_name(judge)}.jsonl").is_file():
                return path
        others = sorted(folders[0].glob("*.jsonl"))
        return others[0] if len(others) == 1 else None

    def references(self, judge: str, questions: Sequence[Question]) -> dict[QuestionId, list[str]]:
        """Reference answers, turn by turn, of the questions that need them.

        Raises:
            DataError: some are missing; names the questions.
        """
        path = self.reference_file(judge)
        given = {} if path is None else read_answers(path)
        found: dict[QuestionId, list[str]] = {}
        for question in questions:
            if not question.needs_reference:
                continue
            answer = given.get(question.question_id)
            turns = first_turns(answer) if answer else list(question.reference)
            if len(turns) >= len(question.turns):
                found[question.question_id] = turns
        missing = [
            question.question_id
            for question in questions
            if question.needs_reference and question.question_id not in found
        ]
        if missing:
            wanted = self.folder / "reference_answer" / f"{_file_name(judge)}.jsonl"
            raise DataError(
                f"Reference answers are missing for questions {', '.join(map(str, missing))}"
                f" of {self.name}; math, reasoning and coding are not judged without.",
                hint=f"Put them into {wanted}, in the form of a model's answers.",
            )
        return found


def _file_name(model: str) -> str:
    """A model's name as part of a file's: hub ids have a slash in them."""
    return model.replace("/", "_")


def read_answers(path: Path) -> Answers:
    """Answers of a file by question; the last one to a question counts.

    Raises:
        DataError: a record is no answer.
    """
    found: dict[QuestionId, Record] = {}
    for record in read_records(path):
        if not _is_answer(record):
            raise DataError(
                f"{path} holds what is no answer: {json.dumps(record, ensure_ascii=False)[:200]}",
                hint="An answer has question_id and choices, each with turns.",
            )
        found[record["question_id"]] = record
    return found


def _is_answer(record: Record) -> bool:
    choices = record.get("choices")
    return (
        isinstance(record.get("question_id"), int | str)
        and isinstance(choices, list)
        and bool(choices)
        and all(isinstance(choice, dict) and _are_texts(choice.get("turns")) for choice in choices)
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def first_turns(answer: Record) -> list[str]:
    """The turns of an answer's first choice, the one that is judged."""
    turns: list[str] = answer["choices"][0]["turns"]
    return turns


def settle_answers(path: Path) -> None:
    """Sorts answers by question and drops those that were given anew."""
    if path.is_file():
        settle(path, lambda each: each["question_id"], lambda each: by_id(each["question_id"]))
