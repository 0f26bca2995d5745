"""What a request holds is given back on every path, and nobody computes for an empty chair."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import httpx2
import openai
import pytest
from starlette.responses import JSONResponse

from fastchat.conversation import get_conv_template
from fastchat.engine.echo import Script
from fastchat.protocol.worker import encode_frame
from tests.serve.harness import PATIENCE_S, left_behind, post, until

HELLO = [{"role": "user", "content": "hello"}]
ONE_SLOT = {"limit_worker_concurrency": 1}
PATHS = {
    "/v1/chat/completions": {"model": "echo", "messages": HELLO},
    "/v1/completions": {"model": "echo", "prompt": "hello"},
}


def ask(stack):
    return stack.client.chat.completions.create(model="echo", messages=HELLO)


def ended(engine):
    return engine.ends.acquire(timeout=PATIENCE_S)


def worker_status(stack):
    url = stack.worker_server.url + "/worker_get_status"
    return post(url).json()


def open_gate(stack):
    stack.worker_server.call(stack.engine.script.gate.set)


BAD_PARAMETERS = [
    {"max_new_tokens": 5000},
    {"use_beam_search": True},
    {"images": ["x"]},
    {"best_of": 2},
    {"messages": [{"role": "wizard", "content": "a"}]},
    {"messages": [{"role": "user"}]},
    {"token_ids": []},
    {"prompt": ""},
]


def test_bad_parameters_hold_no_slot(make_stack):
    stack = make_stack(worker=ONE_SLOT)
    for bad in BAD_PARAMETERS:
        body = {"model": "echo", "prompt": "a", **bad}
        for path in ("/worker_generate", "/worker_generate_stream"):
            response = post(stack.worker_server.url + path, body)
            assert response.status_code == 200
            error = json.loads(response.content.rstrip(b"\0"))
            assert error["error_code"] in (40302, 40303)
            assert worker_status(stack)["queue_length"] == 0
    assert ask(stack).choices[0].message.content == "hello"


@pytest.mark.parametrize("failure", [RuntimeError("boom"), MemoryError(), KeyError("k")])
def test_an_exception_holds_no_slot(make_stack, failure):
    stack = make_stack(Script(fail_after=2, failure=failure), worker=ONE_SLOT)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match=type(failure).__name__):
            ask(stack)
    stack.engine.script = Script()
    assert ask(stack).choices[0].message.content == "hello"


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot_and_stops_the_engine(make_stack, path, stream):
    stack = make_stack(Script(gate=asyncio.Event()), worker=ONE_SLOT)
    body = {**PATHS[path], "stream": stream}
    with left_behind(stack.api_server, path, body, **{"X-Request-ID": "left"}):
        assert stack.engine.starts.acquire(timeout=PATIENCE_S)
    assert ended(stack.engine)
    assert stack.engine.aborted == ["left"]
    open_gate(stack)
    assert ask(stack).choices[0].message.content == "hello"


def test_closing_a_stream_in_the_middle_stops_the_engine(make_stack):
    stack = make_stack(Script(answer=lambda _: "x" * 900), worker=ONE_SLOT)
    with stack.client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, n=2
    ) as stream:
        next(stream)
    assert ended(stack.engine)
    stack.engine.script = Script()
    assert ask(stack).choices[0].message.content == "hello"


@pytest.mark.parametrize("path", ["/worker_generate", "/worker_generate_stream"])
def test_leaving_the_line_gives_up_the_wait(make_stack, path):
    stack = make_stack(Script(gate=asyncio.Event()), worker=ONE_SLOT)
    with left_behind(stack.worker_server, path, {"prompt": "first"}):
        assert stack.engine.starts.acquire(timeout=PATIENCE_S)
        with left_behind(stack.worker_server, path, {"prompt": "second"}):
            until(lambda: worker_status(stack)["queue_length"] == 2)
        until(lambda: worker_status(stack)["queue_length"] == 1)
    assert ended(stack.engine)
    open_gate(stack)
    assert ask(stack).choices[0].message.content == "hello"
    assert [bytes(request.prompt_ids[:5]) for request in stack.engine.requests] == [
        b"first",
        b"hello",
    ]


def test_a_request_in_line_outlives_the_timeout_between_chunks(make_stack):
    stack = make_stack(
        Script(gate=asyncio.Event()),
        worker={**ONE_SLOT, "keep_alive_s": 0.02},
        api={"worker_timeout_s": 1.5},
    )
    url = stack.worker_server.url + "/worker_generate_stream"
    with httpx2.stream("POST", url, json={"prompt": "first"}, trust_env=False) as first:
        assert stack.engine.starts.acquire(timeout=PATIENCE_S)
        with stack.client.chat.completions.with_streaming_response.create(
            model="echo", messages=HELLO, stream=True
        ) as waiting:
            lines = waiting.iter_lines()
            seen = [next(lines) for _ in range(180)]
            assert worker_status(stack)["queue_length"] == 2
            open_gate(stack)
            first.read()
            rest = list(lines)
    assert seen.count(": waiting") > 75
    assert rest[-2:] == ["data: [DONE]", ""]
    assert not any("error" in line for line in rest)


def test_a_worker_that_says_nothing_is_504(make_stack):
    stack = make_stack(Script(gate=asyncio.Event()), api={"worker_timeout_s": 1.0})
    with pytest.raises(openai.APIStatusError, match="sent nothing") as caught:
        ask(stack)
    assert caught.value.status_code == 504
    assert caught.value.body["message"]
    assert ended(stack.engine)
    assert len(stack.engine.aborted) == 1


class BrokenWorker:
    """Behaves like a worker up to the answer, and then in some wrong way."""

    def __init__(self, pieces, *, breaks_off=False):
        self.pieces = pieces
        self.breaks_off = breaks_off

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/worker_get_conv_template":
            template = get_conv_template("yuan2")
            body = {"conv": {**dataclasses.asdict(template), "sep_style": 20}}
            await JSONResponse(body)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not self.breaks_off:
            await send({"type": "http.response.body", "body": b""})


HALF_AN_ANSWER = encode_frame(
    {"text": "half", "error_code": 0, "usage": None, "finish_reason": None}
)


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (BrokenWorker([HALF_AN_ANSWER]), "before the answer was complete"),
        (BrokenWorker([HALF_AN_ANSWER], breaks_off=True), "broke off"),
        (BrokenWorker([HALF_AN_ANSWER, b'{"text": "ha']), "broke off inside a chunk"),
        (BrokenWorker([HALF_AN_ANSWER, b"hello\0"]), "sent no chunk"),
        (BrokenWorker([HALF_AN_ANSWER, b"{}\0"]), "sent no chunk"),
    ],
)
def test_a_worker_that_breaks_ends_the_stream_with_an_error(make_stack, worker, reason):
    _, controller_server = make_stack.controller()
    worker_url = make_stack.serve(lambda _: worker).url
    _, api = make_stack.api(controller_server.url)
    announcement = {
        "worker_name": worker_url,
        "check_heart_beat": False,
        "worker_status": {"model_names": ["echo"], "speed": 1, "queue_length": 0},
    }
    post(controller_server.url + "/register_worker", announcement).raise_for_status()
    body = {"model": "echo", "messages": HELLO}
    url = api.url + "/v1/chat/completions"
    whole = post(url, body)
    assert whole.status_code == 503
    assert reason in whole.json()["message"]
    stream = post(url, {**body, "stream": True}).text
    *_, text, error, done, _ = stream.split("\n\n")
    assert '"content": "half"' in text
    assert reason in error
    assert done == "data: [DONE]"


def test_shutting_down_closes_the_engine(make_stack):
    stack = make_stack()
    stack.worker_server.__exit__()
    assert stack.engine.closed
