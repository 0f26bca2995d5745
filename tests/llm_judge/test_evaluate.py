"""`fastchat eval` from a model to the table, over real HTTP."""

from __future__ import annotations

import pytest

from fastchat.errors import SettingsError
from fastchat.llm_judge import evaluate
from fastchat.llm_judge.bench import Bench
from fastchat.llm_judge.browsing import ALL, Library
from tests.llm_judge.conftest import answers_of, read_lines, status_of


def say(prompt):
    return "Rating: [[7]]" if "examiner" in prompt else f"I say {prompt}"


def test_a_served_model_is_evaluated(workplace, make_judge, capsys):
    stack = make_judge(say)
    url = stack.api_server.url + "/v1"
    flags = ["--url", url, "--model", "echo", "--judge-url", url, "--judge-model", "echo"]
    assert status_of(evaluate.main, [*flags, "--yes"]) == 0
    told = capsys.readouterr().out
    assert "5 replies to 3 questions" in told
    assert "at most 5 calls" in told
    row = next(line for line in told.splitlines() if line.startswith("echo"))
    assert row.split() == ["echo", "7.00", "7.00", "7.00", "7.00", "to", "7.00", "5", "0"]
    made = len(stack.engine.requests)
    assert made == 10
    assert status_of(evaluate.main, [*flags, "--yes"]) == 0
    assert len(stack.engine.requests) == made

    library = Library(Bench("mt_bench"))
    assert library.judges() == ["echo"]
    first, second = library.view(82, ["echo"], "echo")
    assert first.said[0].text == "I say 1+1?"
    assert (second.said[0].score, second.reference) == ("7", "4")


def test_a_loaded_model_is_evaluated_against_another(workplace, tiny_folder, make_judge, capsys):
    answers_of("old")
    stack = make_judge(lambda prompt: "[[B]]")
    flags = [
        *("--model-path", str(tiny_folder), "--model-id", "new", "--device", "cpu"),
        *("--threads", "1", "--max-new-token", "8", "--first-n", "2", "--yes"),
        *("--judge-url", stack.api_server.url + "/v1", "--judge-model", "echo"),
        *("--mode", "pairwise-baseline", "--baseline-model", "old"),
    ]
    assert status_of(evaluate.main, flags) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("new"))
    assert row.split()[:5] == ["new", "0", "0", "4", "50%"]
    assert [each["question_id"] for each in read_lines("data/mt_bench/model_answer/new.jsonl")] == [
        *(81, 82)
    ]
    (view, _) = Library(Bench("mt_bench")).view(81, ["new", "old"], "echo")
    assert view.verdict == "tie (with new first: old; with old first: new)"
    assert Library(Bench("mt_bench")).categories() == [ALL, "writing", "math", "stem"]


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ([], "Name one model"),
        (["--url", "http://127.0.0.1:9/v1"], "--model"),
        (["--url", "x", "--model", "m", "--judge-model", "gpt-4", "--judge-api-key", ""], "key"),
        (["--model-path", "m", "--mode", "pairwise-baseline"], "--baseline-model"),
    ],
)
def test_flags_that_cannot_be_used(workplace, flags, fault):
    with pytest.raises(SettingsError, match=fault):
        evaluate.main(flags)


def test_a_flag_that_nobody_knows(workplace, capsys):
    assert status_of(evaluate.main, ["--url", "x", "--model", "m", "--tempreature", "1"]) == 2
    assert "--tempreature" in capsys.readouterr().err
