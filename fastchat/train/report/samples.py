"""samples.jsonl: what the model answers to a few conversations while it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fastchat.chat import ChatRenderer
from fastchat.data.sample import Sample
from fastchat.train.report.files import write_atomically
from fastchat.train.report.metrics_file import append, as_jsonl, read_lines

FILE_NAME = "samples.jsonl"

Generate = Callable[[list[list[int]]], list[str]]
"""Answers prompts, given as token ids."""


@dataclass(frozen=True, slots=True)
class Question:
    """The last question of a conversation.

    Attributes:
        id: the conversation's.
        prompt: the question, as people read it.
        prompt_ids: the whole conversation up to it, as the model is served.
        reference: the answer in the data.
    """

    id: str
    prompt: str
    prompt_ids: list[int]
    reference: str


@dataclass(frozen=True, slots=True)
class SampleAnswers:
    """What became of a question in the course of a run."""

    prompt: str
    reference: str
    before: str | None
    after: str


def last_questions(samples: Iterable[Sample], renderer: ChatRenderer, count: int) -> list[Question]:
    """The last questions of the first `count` conversations that hold an answer.

    Raises:
        RequestError: the model's template refuses a conversation.
    """
    answered = (sample for sample in samples if sample.messages)
    return [
        Question(
            id=sample.id,
            prompt=sample.messages[-2]["content"],
            prompt_ids=list(renderer.render(sample.messages[:-1]).ids),
            reference=sample.messages[-1]["content"],
        )
        for sample in islice(answered, count)
    ]


class SampleWriter(TrainerCallback):
    """Has questions answered at the start, at every evaluation and at the end.

    Every process generates, as weights that are spread over processes need all of them;
    the main one writes. A run that goes on from a checkpoint first takes out the answers
    behind it.

    Args:
        path: the file.
        questions: what is asked.
        generate: answers them; leaves the model in the mode in which it found it.
    """

    def __init__(self, path: Path, questions: Sequence[Question], generate: Generate) -> None:
        self._path = path
        self._questions = questions
        self._generate = generate
        self._answered_step = -1
        self._training = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the model as it was, unless the run goes on from a checkpoint."""
        del args, control, kwargs
        self._training = True
        if state.is_world_process_zero:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept = _up_to(self._path, state.global_step)
            write_atomically(self._path, as_jsonl(kept))
        if state.global_step == 0:
            self._ask("start", 0, state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the model as it is; once a step, and not again when training is over."""
        del args, control, kwargs
        if self._training and state.global_step != self._answered_step:
            self._ask("evaluation", state.global_step, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the model that is kept: the last, or the best."""
        del control, kwargs
        step = state.global_step
        if args.load_best_model_at_end and state.best_global_step:
            step = state.best_global_step
        if step != self._answered_step:
            self._ask("end", step, state)
        self._training = False

    def _ask(self, event: str, step: int, state: Any) -> None:
        answers = self._generate([question.prompt_ids for question in self._questions])
        self._answered_step = step
        if not state.is_world_process_zero:
            return
        for number, (question, answer) in enumerate(zip(self._questions, answers, strict=True)):
            line = {"step": step, "event": event, "question": number} | asdict(question)
            del line["prompt_ids"]
            append(self._path, line | {"answer": answer})


def read_answers(path: Path) -> list[SampleAnswers]:
    """The first and the last answer to each question; nothing where there is no file.

    Where there is one answer only, none stands before it.
    """
    by_question: dict[int, list[dict[str, Any]]] = {}
    for line in read_lines(path) if path.exists() else ():
        by_question.setdefault(line["question"], []).append(line)
    return [
        SampleAnswers(
            prompt=lines[-1]["prompt"],
            reference=lines[-1]["reference"],
            before=lines[0]["answer"] if len(lines) > 1 else None,
            after=lines[-1]["answer"],
        )
        for lines in by_question.values()
    ]


def _up_to(path: Path, step: int) -> list[dict[str, Any]]:
    if step == 0 or not path.exists():
        return []
    return [line for line in read_lines(path) if line["step"] <= step]
