"""A folder to work in, and a judge: this project's own API over a scripted engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastchat.engine.echo import Script
from tests.engine.conftest import tiny_folder
from tests.serve.conftest import make_stack

__all__ = ["make_stack", "tiny_folder"]

ROOMY = 40_000


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The working directory, with a bench of three questions in FastChat's format."""
    monkeypatch.chdir(tmp_path)
    questions = [
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
        {"question_id": 82, "category": "math", "turns": ["1+1?", "2+2?"], "reference": ["2", "4"]},
        {"question_id": 83, "category": "stem", "turns": ["Why?"], "required_temperature": 0.3},
    ]
    write_lines(tmp_path / "data" / "mt_bench" / "question.jsonl", questions)
    return tmp_path


@pytest.fixture
def make_judge(make_stack):
    """Starts a judge that says what a function makes of its prompt; gives the stack."""

    def make(say):
        return make_stack(Script(answer=say), context_length=ROOMY)

    return make


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def store_answers(model, turns_by_id):
    """A model's answers, as FastChat stores them."""
    records = [
        {
            "question_id": question_id,
            "answer_id": f"{model}-{question_id}",
            "model_id": model,
            "choices": [{"index": 0, "turns": turns}],
            "tstamp": 1.0,
        }
        for question_id, turns in turns_by_id.items()
    ]
    write_lines(Path("data/mt_bench/model_answer") / f"{model}.jsonl", records)


def answers_of(model):
    """A full set for the bench of three questions."""
    store_answers(
        model, {81: [f"{model} one", f"{model} two"], 82: ["2", "4"], 83: [f"{model} why"]}
    )


def judging_flags(stack, *more):
    return ["--openai-api-base", stack.api_server.url + "/v1", "--judge-model", "echo", *more]


def status_of(main, flags):
    """The exit status of an entry point."""
    try:
        main(flags)
    except SystemExit as end:
        return end.code or 0
    return 0
