"""From a question to a record of a model's answers, and from a bench to those still missing."""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastchat.llm_judge.asking import Asker, Job, Messages, Outcome, run_jobs
from fastchat.llm_judge.bench import read_answers, settle_answers
from fastchat.llm_judge.questions import Question
from fastchat.llm_judge.records import Record, append_record


@dataclass(frozen=True, slots=True)
class Wishes:
    """How answers are made.

    Attributes:
        model_id: under this name they are stored.
        choices: answers to each question.
        temperature: in place of the question's own.
    """

    model_id: str
    choices: int = 1
    temperature: float | None = None


@dataclass(slots=True)
class Cuts:
    """Counts replies that ended only because they had become too long."""

    count: int = 0


def missing(path: Path, questions: Sequence[Question], choices: int) -> list[Question]:
    """The questions that a file holds no answer to, or fewer choices than wanted.

    Raises:
        DataError: the file cannot be used.
    """
    given = read_answers(path)

    def complete(question: Question) -> bool:
        answer = given.get(question.question_id)
        return answer is not None and len(answer["choices"]) >= choices

    return [question for question in questions if not complete(question)]


async def answer_all(
    asker: Asker, questions: Sequence[Question], path: Path, wishes: Wishes, parallel: int
) -> tuple[Outcome, Cuts]:
    """Answers questions, so many at once; each is stored as soon as it is complete.

    Raises:
        FastChatError: see `run_jobs`.
    """
    cuts = Cuts()

    def job(question: Question) -> Job:
        async def run() -> None:
            append_record(path, await _answer(asker, question, wishes, cuts))

        return Job(f"question {question.question_id}", run)

    try:
        outcome = await run_jobs(list(map(job, questions)), parallel, wishes.model_id)
    finally:
        settle_answers(path)
    return outcome, cuts


async def _answer(asker: Asker, question: Question, wishes: Wishes, cuts: Cuts) -> Record:
    temperature = question.temperature if wishes.temperature is None else wishes.temperature
    choices = []
    for index in range(wishes.choices):
        messages: Messages = []
        turns = []
        for turn, said in enumerate(question.turns):
            messages.append({"role": "user", "content": said})
            # The same whatever else is answered, so that a run that went on gives what a run
            # in one piece gives.
            seed = zlib.crc32(f"{question.question_id}/{index}/{turn}".encode())
            reply = await asker.reply(messages, temperature=temperature, seed=seed)
            cuts.count += reply.cut
            turns.append(reply.text)
            messages.append({"role": "assistant", "content": reply.text})
        choices.append({"index": index, "turns": turns})
    return {
        "question_id": question.question_id,
        "answer_id": uuid.uuid4().hex,
        "model_id": wishes.model_id,
        "choices": choices,
        "tstamp": time.time(),
    }
