"""Asking for answers as the page and the terminal do, from real servers."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import aclosing

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from fastchat.engine.echo import Script
from fastchat.errors import (
    AuthenticationError,
    ContextOverflowError,
    FastChatError,
    SettingsError,
    UnknownModelError,
    WorkerUnavailableError,
)
from fastchat.serve.talking.answer import Answer, Progress, Question, Sampling
from fastchat.serve.talking.backend import Backends, ask
from fastchat.serve.talking.cluster import ClusterBackend
from fastchat.serve.talking.openai_server import OpenAIBackend, OpenAIServer
from fastchat.serve.talking.registered import read_api_models
from tests.serve.harness import until

BOTH = pytest.mark.parametrize("way", ["controller", "api"])


def backend_of(way, stack):
    if way == "controller":
        return ClusterBackend(stack.controller_server.url)
    key = stack.settings.api_keys[0] if stack.settings.api_keys else ""
    return OpenAIBackend(OpenAIServer(stack.api_server.url + "/v1", key))


def question(text="你好", model="echo", **sampling):
    messages = [{"role": "user", "content": text}]
    return Question(model, messages, Sampling(**sampling), "req-test")


async def whole(backend, asked):
    ticks = itertools.count()
    texts, answer = [], None
    async with aclosing(ask(backend, asked, lambda: float(next(ticks)))) as answers:
        async for answer in answers:
            texts.append(answer.text)
    return texts, answer


@BOTH
async def test_an_answer_grows_and_ends_with_its_figures(stack, way):
    backend = backend_of(way, stack)
    texts, answer = await whole(backend, question("你好吗"))
    await backend.close()
    assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
    assert texts[-1] == answer.text == "你好吗"
    assert "你" in texts
    figures = answer.stats()
    assert figures["tokens"] == len("你好吗".encode()) + 1
    assert figures["finish_reason"] == "stop"
    assert figures["request_id"] == "req-test"
    assert figures["first_token_s"] > 0
    assert figures["tokens_per_s"] > 0


@BOTH
async def test_wishes_and_the_name_of_the_request_reach_the_engine(stack, way):
    backend = backend_of(way, stack)
    wishes = {"temperature": 0.3, "top_p": 0.5, "repetition_penalty": 1.2, "max_new_tokens": 2}
    _, answer = await whole(backend, question("abc", **wishes))
    await backend.close()
    assert answer.finish_reason == "length"
    (request,) = stack.engine.requests
    assert {name: getattr(request.sampling, name) for name in wishes} == wishes
    assert "req-test" in request.request_id


@BOTH
async def test_leaving_an_answer_frees_the_engine(stack, way):
    stack.engine.script = Script(answer=lambda _: "x" * 900)
    backend = backend_of(way, stack)
    async with aclosing(ask(backend, question(), lambda: 0.0)) as answers:
        async for answer in answers:
            if len(answer.text) > 2:
                break
    await asyncio.to_thread(until, lambda: stack.engine.aborted)
    await backend.close()


@BOTH
async def test_errors_tell_the_cause(stack, way):
    backend = backend_of(way, stack)
    with pytest.raises(UnknownModelError, match="echo"):
        await whole(backend, question(model="other"))
    with pytest.raises(FastChatError, match="context") as caught:
        await whole(backend, question("x" * 2000))
    assert way == "api" or isinstance(caught.value, ContextOverflowError)
    await backend.close()


@BOTH
async def test_a_failure_in_the_middle_keeps_the_text_before_it(stack, way):
    stack.engine.script = Script(fail_after=3)
    backend = backend_of(way, stack)
    kept = []

    async def read():
        async for answer in ask(backend, question("abcdef"), lambda: 0.0):
            kept[:] = [answer.text]

    with pytest.raises(FastChatError):
        await read()
    assert kept[-1]
    assert "abcdef".startswith(kept[-1])
    await backend.close()


@BOTH
async def test_models_and_room_are_told(stack, way):
    backend = backend_of(way, stack)
    assert await backend.models() == ["echo"]
    room = await backend.room("echo", "abc")
    assert (room.tokens, room.context) == (3, 1024)
    assert await backend.room("other", "abc") is None
    await backend.close()


async def test_nobody_there_is_told_as_such():
    for backend in (
        ClusterBackend("http://127.0.0.1:9"),
        OpenAIBackend(OpenAIServer("http://127.0.0.1:9/v1")),
    ):
        with pytest.raises(WorkerUnavailableError, match="cannot be reached"):
            await whole(backend, question())
        await backend.close()


async def test_a_wrong_key_is_told_as_such(make_stack):
    stack = make_stack(api={"api_keys": ["right"]})
    backend = OpenAIBackend(OpenAIServer(stack.api_server.url + "/v1", "wrong"))
    with pytest.raises(AuthenticationError, match="wrong"):
        await whole(backend, question())
    await backend.close()


async def test_backends_are_asked_where_the_model_is(make_stack):
    stack = make_stack(worker={"model_names": ["far"]})
    gone = ClusterBackend("http://127.0.0.1:9")
    server = OpenAIServer(stack.api_server.url + "/v1", models={"near": "far"})
    both = Backends(gone, OpenAIBackend(server))
    assert await both.models() == ["near"]
    texts, _ = await whole(both, question(model="near"))
    assert texts[-1] == "你好"
    with pytest.raises(UnknownModelError, match="near"):
        await whole(both, question(model="far"))
    await both.close()
    alone = Backends(ClusterBackend("http://127.0.0.1:9"))
    with pytest.raises(WorkerUnavailableError):
        await alone.models()
    await alone.close()


def strange(body, status=200):
    async def answer(_):
        if isinstance(body, str):
            return PlainTextResponse(body, status)
        return JSONResponse(body, status)

    return Starlette(routes=[Route("/v1/{rest:path}", answer, methods=["GET", "POST"])])


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("<html>", 502, "502: <html>"),
        ({"error": {"message": "no such thing"}}, 404, "no such thing"),
        ({"error": "plain"}, 500, "plain"),
        ("data: {oops\n\n", 200, "no JSON"),
        ('data: {"error": {"message": "burnt"}}\n\n', 200, "burnt"),
        ('data: {"choices": [{"delta": {"content": "a"}}]}\n\n', 200, "broke off"),
    ],
)
async def test_strange_servers_are_told_of_in_words(make_stack, body, status, reason):
    server = make_stack.serve(lambda _: strange(body, status))
    backend = OpenAIBackend(OpenAIServer(server.url + "/v1"))
    with pytest.raises(FastChatError, match=reason):
        await whole(backend, question())
    await backend.close()


def test_figures_that_are_not_known_are_left_out():
    answer = Answer("req-1", 1.0)
    answer.hear(Progress("a"), 2.0)
    assert answer.stats() == {"first_token_s": 1.0, "request_id": "req-1"}
    answer.hear(Progress("ab", 5, 9, "stop"), 4.0)
    assert answer.stats()["tokens_per_s"] == 2.0


GOOD = {"api_type": "openai", "model_name": "m", "api_base": "http://localhost/v1"}


def test_a_file_of_api_models_is_read(tmp_path):
    file = tmp_path / "apis.json"
    config = {"temperature": 0.1, "extra_body": {"top_k": 3}}
    entry = {**GOOD, "api_key": "k", "anony_only": True, "recommended_config": config}
    file.write_text(json.dumps({"mine": {**entry, "custom_system_prompt": "s"}}))
    (model,) = read_api_models(file)
    assert model.server == OpenAIServer("http://localhost/v1", "k", {"mine": "m"}, {"top_k": 3})
    assert (model.anony_only, model.system, model.recommended.temperature) == (True, "s", 0.1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"a": 1}', "'a' is no JSON object"),
        (json.dumps({"a": {**GOOD, "api_type": "gemini"}}), "'gemini'; 'openai'"),
        (json.dumps({"a": {**GOOD, "api_base": ""}}), "needs api_base"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, content, reason):
    file = tmp_path / "apis.json"
    file.write_text(content)
    with pytest.raises(SettingsError, match=reason):
        read_api_models(file)
