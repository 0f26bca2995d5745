"""Answers by a loaded model and over HTTP; a run that went on gives what one in a piece gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from fastchat.engine.echo import Script, echo_model
from fastchat.errors import SettingsError
from fastchat.llm_judge import gen_api_answer, gen_model_answer
from fastchat.llm_judge.answering import Wishes, answer_all
from fastchat.llm_judge.asking import INCOMPLETE
from fastchat.llm_judge.bench import Bench
from fastchat.llm_judge.local_model import LocalModel
from tests.llm_judge.conftest import ROOMY, read_lines, status_of

LOCAL = "data/mt_bench/model_answer/tiny.jsonl"


def local_flags(folder, *more):
    return [
        *("--model-path", str(folder), "--model-id", "tiny", "--device", "cpu"),
        *("--max-new-token", "12", "--threads", "1", *more),
    ]


def texts(path):
    return {each["question_id"]: each["choices"] for each in read_lines(path)}


def test_a_run_that_went_on_gives_what_a_run_in_one_piece_gives(workplace, tiny_folder, capsys):
    flags = local_flags(tiny_folder, "--num-choices", "2")
    assert status_of(gen_model_answer.main, flags) == 0
    whole = texts(LOCAL)
    assert list(whole) == [81, 82, 83]
    assert [len(choice["turns"]) for choice in whole[81]] == [2, 2]
    assert whole[82][0]["turns"] == whole[82][1]["turns"], "greedy where the temperature is 0"
    assert whole[81][0]["turns"] != whole[81][1]["turns"]
    path = workplace / LOCAL
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[1] + lines[0][:30])
    assert status_of(gen_model_answer.main, flags) == 0
    assert "3 questions of mt_bench, 2 to answer" in capsys.readouterr().out
    assert texts(LOCAL) == whole
    again = path.read_text()
    assert status_of(gen_model_answer.main, flags) == 0
    assert path.read_text() == again


def test_the_template_is_the_models_whatever_the_id(workplace, tiny_folder):
    flags = local_flags(tiny_folder)
    assert status_of(gen_model_answer.main, flags) == 0
    named = workplace / "named.jsonl"
    more = ["--model-id", "vicuna-7b", "--answer-file", str(named)]
    assert status_of(gen_model_answer.main, [*flags, *more]) == 0
    assert texts(named) == texts(LOCAL)
    assert {each["model_id"] for each in read_lines(named)} == {"vicuna-7b"}


@pytest.mark.slow
def test_copies_of_the_model_share_the_questions(workplace, tiny_folder):
    assert status_of(gen_model_answer.main, local_flags(tiny_folder)) == 0
    alone = texts(LOCAL)
    (workplace / LOCAL).unlink()
    flags = local_flags(tiny_folder, "--num-gpus-total", "2")
    assert status_of(gen_model_answer.main, flags) == 0
    assert texts(LOCAL) == alone
    flags = local_flags(tiny_folder, "--num-gpus-per-model", "2", "--model-id", "other")
    with pytest.raises(SettingsError, match="--num-gpus-per-model 2"):
        gen_model_answer.main(flags)


async def test_what_does_not_fit_the_context_is_left_out_and_told(workplace, capsys):
    served = echo_model(Script(answer=lambda prompt: "x" * 40), context_length=50)
    model = LocalModel(served, max_new_tokens=40)
    path = workplace / LOCAL
    outcome, cuts = await answer_all(model, Bench("mt_bench").questions(), path, Wishes("m"), 4)
    assert outcome.tell("answers") == INCOMPLETE
    assert "--max-new-token" in capsys.readouterr().err
    assert list(texts(path)) == [83]
    assert texts(path)[83][0]["turns"] == ["x" * 40]
    assert cuts.count > 0


def test_answers_over_http(workplace, make_stack):
    stack = make_stack(context_length=ROOMY)
    path = "data/mt_bench/model_answer/echo.jsonl"
    url = ["--openai-api-base", stack.api_server.url + "/v1", "--model", "echo"]
    flags = [*url, "--parallel", "3", "--question-begin", "1"]
    assert status_of(gen_api_answer.main, flags) == 0
    assert list(texts(path)) == [82, 83]
    by_text = {
        stack.engine.codec.decode_ids(each.prompt_ids, skip_special_tokens=True): each.sampling
        for each in stack.engine.requests
    }
    assert by_text["1+1?"].temperature == 0
    assert by_text["Why?"].temperature == 0.3
    assert status_of(gen_api_answer.main, [*url, "--force-temperature", "0.9"]) == 0
    assert list(texts(path)) == [81, 82, 83]
    assert stack.engine.requests[-1].sampling.temperature == 0.9
    stack.engine.requests.clear()
    assert status_of(gen_api_answer.main, flags) == 0
    assert stack.engine.requests == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_was_answered_before_the_end_of_the_process_stays(workplace, make_stack, how):
    stack = make_stack(context_length=ROOMY)
    path = workplace / "data/mt_bench/model_answer/echo.jsonl"
    command = [sys.executable, "-m", "fastchat.llm_judge.gen_api_answer", "--model", "echo"]
    command += ["--openai-api-base", stack.api_server.url + "/v1"]

    def held_at_the_last(prompt):
        if prompt == "Why?":
            os.kill(process.pid, how)
        return prompt

    stack.engine.script = Script(answer=held_at_the_last)
    process = subprocess.Popen(command, cwd=workplace, stderr=subprocess.DEVNULL)
    assert process.wait() != 0
    before = texts(path)
    assert {81, 82} <= set(before)
    stack.engine.script = Script()
    subprocess.run(command, cwd=workplace, check=True)
    after = texts(path)
    assert list(after) == [81, 82, 83]
    assert {key: after[key] for key in before} == before
