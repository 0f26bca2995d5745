"""Small tools, helpers, and the names that other programs import."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastchat import utils
from fastchat.errors import SettingsError, UnknownModelError
from fastchat.serve import openai_api_server, test_message
from fastchat.serve import test_throughput as throughput
from fastchat.serve.call_monitor import CallLog, create_call_monitor


def test_a_message_goes_to_a_worker_and_its_answer_is_printed(stack, capsys):
    test_message.main(
        ["--controller", stack.controller_server.url, "--model", "echo", "--message", "你好 a"]
    )
    assert capsys.readouterr().out == "user: 你好 a\nassistant: 你好 a\n"


def test_a_message_for_an_unknown_model_names_the_known_ones(stack):
    with pytest.raises(UnknownModelError, match="echo"):
        test_message.main(["--controller", stack.controller_server.url, "--model", "nope"])


def test_other_programs_import_the_app_and_its_settings():
    from fastchat.serve.openai_api_server import app, app_settings

    assert isinstance(app, FastAPI)
    assert openai_api_server.app is app
    assert openai_api_server.app_settings is app_settings
    assert "/v1/chat/completions" in app.openapi()["paths"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = openai_api_server.nothing


def test_importing_the_server_loads_no_web_framework():
    probe = (
        "import fastchat.serve.openai_api_server, fastchat.serve.model_worker, sys;"
        "assert not {'fastapi', 'starlette', 'uvicorn', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


async def test_generate_parameters_are_fastchats(stack):
    found = await openai_api_server.get_gen_params(
        "echo",
        stack.worker_server.url,
        [{"role": "user", "content": "hi"}],
        temperature=0.5,
        top_p=1.0,
        top_k=-1,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        max_tokens=9,
        echo=False,
        stop="x",
    )
    await openai_api_server.app.state.cluster.close()
    assert found["prompt"] == "hi<sep>"
    assert found["messages"] == [{"role": "user", "content": "hi"}]
    assert (found["temperature"], found["max_new_tokens"]) == (0.5, 9)
    assert found["stop"] == ["x", "<eod>"]
    assert (found["stop_token_ids"], found["echo"]) == ([256], False)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 100, "rope_scaling": {"factor": 2.0}}, 200),
        ({"max_position_embeddings": 100, "rope_scaling": None}, 100),
        ({"seq_length": 7}, 7),
        ({}, 2048),
    ],
)
def test_the_context_length_is_read_from_a_config(config, length):
    assert utils.get_context_length(SimpleNamespace(**config)) == length


@pytest.mark.parametrize(
    ("output", "stop", "partial"),
    [
        ("abc<", "<eod>", True),
        ("abc<eod>", "<eod>", True),
        ("abc", "<eod>", False),
        ("", "x", False),
    ],
)
def test_a_partial_stop_is_an_end_that_begins_a_stop(output, stop, partial):
    assert utils.is_partial_stop(output, stop) is partial


def test_sentences_end_in_both_languages():
    assert all(map(utils.is_sentence_complete, ["Yes.", "是。", "真的？", '"Yes."']))
    assert not utils.is_sentence_complete("Yes,")


def test_web_users_are_read_from_lines_and_commas(tmp_path):
    file = tmp_path / "users"
    file.write_text("a:1,b:2:3\n\nc:\n", encoding="utf-8")
    assert utils.parse_gradio_auth_creds(str(file)) == [("a", "1"), ("b", "2:3"), ("c", "")]
    file.write_text("nobody", encoding="utf-8")
    with pytest.raises(SettingsError, match="user:password"):
        utils.parse_gradio_auth_creds(str(file))
    with pytest.raises(SettingsError, match="nowhere"):
        utils.parse_gradio_auth_creds(str(tmp_path / "nowhere"))


def test_dtypes_have_names():
    import torch

    assert utils.str_to_torch_dtype("bfloat16") is torch.bfloat16
    assert utils.str_to_torch_dtype(None) is None
    with pytest.raises(SettingsError, match="int8"):
        utils.str_to_torch_dtype("int8")


def test_commands_are_shown_and_run(capfd):
    assert utils.run_cmd([sys.executable, "-c", "print('ran')"]) == 0
    assert utils.run_cmd("exit 3") == 3
    out = capfd.readouterr().out
    assert "ran" in out
    assert "exit 3" in out


def test_a_semaphore_is_shown_with_its_value():
    assert utils.pretty_print_semaphore(None) == "None"
    shown = utils.pretty_print_semaphore(asyncio.Semaphore(2))
    assert shown == "Semaphore(value=2, locked=False)"


@pytest.fixture
def restored_loggers():
    """Puts the loggers that a process sets up back as they were."""
    loggers = [logging.getLogger(name) for name in ("some_process", "fastchat", "uvicorn")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("restored_loggers")
def test_loggers_are_built_once_and_leave_the_streams_alone(capsys):
    out, err = sys.stdout, sys.stderr
    for _ in range(2):
        logger = utils.build_logger("some_process", "")
    logging.getLogger("fastchat.anything").info("over %s", "there")
    assert (sys.stdout, sys.stderr) == (out, err)
    (line,) = capsys.readouterr().err.splitlines()
    stamp, *rest = line.split(" | ")
    assert rest == ["INFO", "fastchat.anything", "over there"]
    assert len(stamp) == len("2026-01-01 00:00:00")
    assert len(logger.handlers) == 1


def test_throughput_is_told_of_answers_side_by_side(stack, capsys):
    flags = ["--controller", stack.controller_server.url, "--model-name", "echo"]
    throughput.main([*flags, "--n-thread", "4", "--max-new-tokens", "8", "--test-dispatch"])
    told = capsys.readouterr().out
    assert "answers: 4\ntokens: 32\n" in told
    assert f"worker: {stack.worker_server.url}" in told
    assert "first text, seconds, median / 95 % / 99 %" in told


def test_the_call_monitor_counts_the_chats_of_the_logs(tmp_path):
    now = 1_000_000.0
    entries = [
        {"tstamp": now - 10, "type": "chat", "model": "a", "ip": "u1"},
        {"tstamp": now - 20, "type": "chat", "model": "a", "ip": "u1"},
        {"tstamp": now - 5000, "type": "chat", "model": "b", "ip": "u2"},
        {"tstamp": now - 10, "type": "upvote", "model": "a", "ip": "u3"},
        {"tstamp": now - 90_000, "type": "chat", "model": "a", "ip": "u4"},
    ]
    file = tmp_path / "2026-01-02-conv.json"
    file.write_text("\n".join(map(json.dumps, entries)) + '\n{"tstamp":')
    log = CallLog(tmp_path, lambda: now)
    client = TestClient(create_call_monitor(log))
    assert client.get("/get_num_users_hr").json() == {"num_users": 1}
    assert client.get("/get_num_users_day").json() == {"num_users": 2}
    assert client.get("/get_model_call_stats").json() == {"model_call_stats": {"a": 2, "b": 1}}
    assert client.get("/get_user_call_stats").json()["user_call_stats"]["u1"] == {"a": 2}
    asked = {"model": "a", "user_id": "u1"}
    assert not client.get("/is_limit_reached", params=asked).json()["is_limit_reached"]
    assert client.get("/update_model_call_limit/a/2").status_code == 405
    client.post("/update_model_call_limit/a/2")
    assert client.get("/get_model_call_limit/a").json() == {"model_call_limit": {"a": 2}}
    assert client.get("/is_limit_reached", params=asked).json()["is_limit_reached"]
