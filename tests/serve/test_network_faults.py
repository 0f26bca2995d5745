"""The network between API server and worker fails, and API servers are restarted."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from fastchat.engine.echo import Script
from fastchat.serve.openai.app import create_openai_app
from tests.serve.harness import PATIENCE_S, ReservedPort, make_served, post, until
from tests.serve.line import Line
from tests.serve.test_failover import CHAT, HELLO, ask
from tests.serve.test_lifecycle import ended, open_gate

CHAT_PATH = "/v1/chat/completions"


class HeldAfter(asyncio.Event):
    """A gate that some tokens pass before it is opened."""

    def __init__(self, tokens):
        super().__init__()
        self._left = tokens

    async def wait(self):
        self._left -= 1
        return self._left >= 0 or await super().wait()


@pytest.fixture
def lined(make_stack):
    """A stack whose worker is reached over a line; returns both."""
    lines = []

    def made(script=None, **more):
        line = Line()
        lines.append(line)
        stack = make_stack(script, worker={"worker_address": line.url}, **more)
        line.target = stack.worker_server.url
        return stack, line

    yield made
    for line in lines:
        line.close()


def test_a_stream_whose_line_is_cut_ends_with_an_error_and_frees_its_place(lined):
    stack, line = lined(Script(gate=HeldAfter(2)))
    stream = ask(stack, stream=True)
    text = ""
    while not text:
        text += next(stream).choices[0].delta.content or ""
    line.cut()
    with pytest.raises(openai.APIError, match="broke off"):
        text += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "hello".startswith(text)
    assert ended(stack.engine)


def test_what_has_no_output_goes_on_elsewhere_and_the_mended_line_is_used_again(lined, make_stack):
    stack, line = lined(Script(gate=asyncio.Event()))
    stream = ask_soon(stack)
    assert stack.engine.starts.acquire(timeout=PATIENCE_S)
    served, other = make_served()
    make_stack.worker(served, stack.controller_server.url)
    stack.controller.await_worker()
    line.cut()
    assert stream.result(PATIENCE_S).status_code == 200
    for _ in range(4):
        assert ask(stack).choices[0].message.content == "hello"
    assert len(other.requests) == 5
    open_gate(stack)
    line.mend()

    def used_again():
        ask(stack)
        return len(stack.engine.requests) > 1

    until(used_again)


def test_a_line_that_carries_nothing_any_more_is_a_time_out(lined):
    stack, line = lined(Script(gate=HeldAfter(1)), api={"worker_timeout_s": 0.2})
    stream = ask(stack, stream=True)
    next(stream)
    line.hold()
    with pytest.raises(openai.APIError, match="sent nothing for"):
        list(stream)


def test_an_api_server_is_restarted_without_breaking_a_stream(make_stack):
    stack = make_stack(Script(gate=asyncio.Event()))
    reserved = ReservedPort()
    port = int(reserved.url.rpartition(":")[2])
    first = make_stack.serve(lambda _: create_openai_app(stack.settings), reserved)
    running = in_background(lambda: post(first.url + CHAT_PATH, {**CHAT, "stream": True}))
    assert stack.engine.starts.acquire(timeout=PATIENCE_S)
    done = first.drain()
    until(lambda: post(first.url + CHAT_PATH, CHAT).status_code == 503)
    open_gate(stack)
    assert running.result(PATIENCE_S).text.endswith("data: [DONE]\n\n")
    done.result(PATIENCE_S)
    first.__exit__()
    second = make_stack.serve(lambda _: create_openai_app(stack.settings), ReservedPort(port))
    assert post(second.url + CHAT_PATH, CHAT).status_code == 200
    assert stack.engine.aborted == []


def ask_soon(stack):
    return in_background(lambda: stack.post(CHAT_PATH, {"model": "echo", "messages": HELLO}))


def in_background(work):
    """A future of a function that runs in a thread."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)
