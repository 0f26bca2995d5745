"""When workers, the controller or the way to them fail: whose requests go on, and how they end."""

from __future__ import annotations

import asyncio

import openai
import pytest

from fastchat.engine.echo import Script
from fastchat.protocol.worker import encode_frame
from fastchat.serve.cluster.app import ControllerSettings
from fastchat.serve.worker.registrar import Pace
from tests.serve.harness import ReservedPort, get, left_behind, make_served, post, until
from tests.serve.test_controller import announce, models
from tests.serve.test_lifecycle import HALF_AN_ANSWER, BrokenWorker

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "echo", "messages": HELLO}
PREFIX = ControllerSettings(dispatch_method="prefix")
SLOW = {"worker": {"pace": Pace(heart_beat_s=1000, first_delay_s=0.02)}}
NO_TEXT_YET = encode_frame({"text": "", "error_code": 0, "usage": None, "finish_reason": None})


def ask(stack, **more):
    return stack.client.chat.completions.create(model="echo", messages=HELLO, **more)


def with_broken(make_stack, pieces, **more):
    """A stack with a second worker, preferred by the controller, that breaks."""
    stack = make_stack(**more)
    broken = make_stack.serve(lambda _: BrokenWorker(pieces, breaks_off=True))
    announce(stack.controller_server, broken.url, "echo", check_heart_beat=True)

    def prefer_broken():
        for entry in stack.controller.registry.entries():
            entry.queue_length = 0 if entry.address == broken.url else 5
            entry.suspect = False

    stack.controller_server.call(prefer_broken)
    until(
        lambda: all(
            (entry.address == broken.url) == (entry.queue_length == 0)
            for entry in stack.controller.registry.entries()
        )
    )
    return stack


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_without_output_goes_on_at_another_worker(make_stack, stream):
    stack = with_broken(make_stack, [NO_TEXT_YET], **SLOW)
    answer = ask(stack, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    else:
        text = answer.choices[0].message.content
    assert text == "hello"
    assert len(stack.engine.requests) == 1


def test_a_whole_answer_may_always_begin_again(make_stack):
    stack = with_broken(make_stack, [HALF_AN_ANSWER], **SLOW)
    assert ask(stack, n=2).choices[1].message.content == "hello"


def test_a_stream_with_output_ends_with_an_error(make_stack):
    stack = with_broken(make_stack, [HALF_AN_ANSWER], **SLOW)
    told = []
    with pytest.raises(openai.APIError, match="broke off"):
        told.extend(chunk.choices[0].delta.content or "" for chunk in ask(stack, stream=True))
    assert "".join(told) == "half"


def test_a_worker_that_drains_passes_its_requests_on(make_stack):
    stack = make_stack(worker=SLOW["worker"])
    served, engine = make_served()
    make_stack.worker(served, stack.controller_server.url)
    stack.controller.await_worker()
    stack.worker_server.app.state.worker.drain.begin()
    for _ in range(4):
        assert ask(stack).choices[0].message.content == "hello"
    assert len(engine.requests) == 4


def test_a_restart_of_the_controller_is_not_noticed(make_stack):
    reserved = ReservedPort()
    url = reserved.url
    _, first = make_stack.controller(reserved=reserved)
    served, _ = make_served()
    make_stack.worker(served, url)
    _, api = make_stack.api(url)
    until(lambda: models(first) == ["echo"])
    chat = api.url + "/v1/chat/completions"
    assert post(chat, CHAT).status_code == 200
    first.__exit__()
    assert post(chat, CHAT).status_code == 200
    again = ReservedPort(int(url.rpartition(":")[2]))
    controller, second = make_stack.controller(reserved=again)
    assert post(chat, CHAT).status_code == 200
    controller.await_worker()
    assert models(second) == ["echo"]
    assert post(chat, CHAT).status_code == 200


def test_embeddings_go_on_at_another_worker(make_stack):
    stack = with_broken(make_stack, [], **SLOW)
    answer = stack.client.embeddings.create(model="echo", input=["a", "b"])
    assert len(answer.data) == 2


def test_conversations_stay_with_their_worker(make_stack):
    _, server = make_stack.controller(settings=PREFIX)
    engines = []
    for _ in range(2):
        served, engine = make_served(context_length=4096)
        make_stack.worker(served, server.url)
        engines.append(engine)
    until(lambda: get(server.url + "/health").json()["workers"] == 2)
    _, api = make_stack.api(server.url)
    talks = [[{"role": "user", "content": f"Question {number}"}] for number in range(10)]
    for _ in range(3):
        for talk in talks:
            body = {"model": "echo", "messages": talk}
            answer = post(api.url + "/v1/chat/completions", body).json()
            talk += [answer["choices"][0]["message"], {"role": "user", "content": "And then?"}]
    homes = [{bytes(r.prompt_ids[:10]) for r in engine.requests} for engine in engines]
    assert not homes[0] & homes[1]
    assert sum(len(engine.requests) for engine in engines) == 30


def test_a_client_that_leaves_is_499_in_the_log_and_the_metrics(make_stack, caplog):
    stack = make_stack(Script(gate=asyncio.Event()))
    caplog.set_level("INFO", logger="fastchat")
    body = {**CHAT, "messages": [{"role": "user", "content": "secret words"}]}
    path = "/v1/chat/completions"
    with left_behind(stack.api_server, path, body, **{"X-Request-ID": "gone-1"}):
        assert stack.engine.starts.acquire(timeout=20)
    metric = f'fastchat:http_requests_total{{route="{path}",status="499"}} 1.0'
    until(lambda: metric in get(stack.api_server.url + "/metrics").text)
    until(lambda: "gone-1 POST /v1/chat/completions 499" in caplog.text)
    assert "secret words" not in caplog.text
