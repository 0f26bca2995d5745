"""What there is to see of a question: answers side by side, the reference, what judges said.

Reads the files anew each time, so that a run can be watched. Knows no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastchat.errors import DataError
from fastchat.llm_judge.bench import Bench, first_turns, read_answers
from fastchat.llm_judge.questions import Question, QuestionId
from fastchat.llm_judge.records import Record, read_records
from fastchat.llm_judge.scores import pair_winner

ALL = "all"


@dataclass(frozen=True, slots=True)
class Said:
    """One model's answer to a turn.

    Attributes:
        score: what the judge gave; "" if it was not asked.
        judgment: why.
    """

    model: str
    text: str
    score: str = ""
    judgment: str = ""


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn of a question.

    Attributes:
        verdict: of the comparison of two answers; "" if there is none.
        judgments: what the judge said in both orders.
    """

    question: str
    reference: str
    said: tuple[Said, ...]
    verdict: str = ""
    judgments: tuple[str, ...] = ()


class Library:
    """A bench's files as a reader sees them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def categories(self) -> list[str]:
        """All categories, after `ALL`."""
        return [ALL, *dict.fromkeys(each.category for each in self.bench.questions())]

    def questions(self, category: str) -> list[Question]:
        """The questions of a category."""
        return [
            each for each in self.bench.questions() if category == ALL or each.category == category
        ]

    def judges(self) -> list[str]:
        """The judges that have judged something."""
        files = (self.bench.folder / "model_judgment").glob("*.jsonl")
        return sorted({path.stem.rpartition("_")[0] for path in files})

    def view(
        self, question_id: QuestionId, models: Sequence[str], judge: str | None
    ) -> list[TurnView]:
        """A question's turns, with one or two models.

        Raises:
            DataError: there is no such question, or a file cannot be used.
        """
        found = [each for each in self.bench.questions() if each.question_id == question_id]
        if not found:
            raise DataError(f"{self.bench.question_file} has no question {question_id}.")
        question = found[0]
        answers = [self._answer(model, question_id) for model in models]
        reference = self._reference(question, judge or "")
        singles = self._judgments(judge, "single", question_id)
        pairs = self._judgments(judge, "pair", question_id)
        return [
            TurnView(
                said,
                reference[turn - 1] if turn <= len(reference) else "",
                tuple(
                    _said(model, turns, turn, singles)
                    for model, turns in zip(models, answers, strict=True)
                ),
                *_verdict(models, turn, pairs),
            )
            for turn, said in enumerate(question.turns, start=1)
        ]

    def _answer(self, model: str, question_id: QuestionId) -> list[str]:
        answer = read_answers(self.bench.answer_file(model)).get(question_id)
        return first_turns(answer) if answer else []

    def _reference(self, question: Question, judge: str) -> list[str]:
        path = self.bench.reference_file(judge)
        given = None if path is None else read_answers(path).get(question.question_id)
        return first_turns(given) if given else list(question.reference)

    def _judgments(self, judge: str | None, mode: str, question_id: QuestionId) -> list[Record]:
        path = Path() if judge is None else self.bench.judgment_file(judge, mode)
        records = [] if judge is None else read_records(path)
        return [each for each in records if each.get("question_id") == question_id]


def _said(model: str, turns: Sequence[str], turn: int, judgments: Sequence[Record]) -> Said:
    text = turns[turn - 1] if turn <= len(turns) else ""
    mine = [each for each in judgments if (each.get("model"), each.get("turn")) == (model, turn)]
    if not mine:
        return Said(model, text)
    score = mine[-1].get("score", -1)
    shown = "not parsed" if score == -1 else f"{score:g}"
    return Said(model, text, shown, str(mine[-1].get("judgment", "")))


def _verdict(
    models: Sequence[str], turn: int, judgments: Sequence[Record]
) -> tuple[str, tuple[str, ...]]:
    ours = [
        each
        for each in judgments
        if {each.get("model_1"), each.get("model_2")} == set(models) and each.get("turn") == turn
    ]
    if not ours or len(models) < 2:
        return "", ()
    last = ours[-1]
    names = {"model_1": last["model_1"], "model_2": last["model_2"], "error": "not parsed"}
    first, second = (names.get(last[order], last[order]) for order in ("g1_winner", "g2_winner"))
    whole = pair_winner(last)
    verdict = (
        f"{names.get(whole, whole)} (with {last['model_1']} first: {first};"
        f" with {last['model_2']} first: {second})"
    )
    said = ((last["model_1"], last["g1_judgment"]), (last["model_2"], last["g2_judgment"]))
    return verdict, tuple(f"**{model} first:** {judgment}" for model, judgment in said)
