"""The controller over HTTP, and how workers come and go."""

from __future__ import annotations

import asyncio
import json

import pytest

from fastchat.engine.echo import Script
from fastchat.serve import register_worker
from fastchat.serve.cluster.app import ControllerSettings
from tests.serve.harness import ReservedPort, get, left_behind, make_served, post, until


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def announce(server, url, *names, **more):
    status = {"model_names": list(names), "speed": 1, "queue_length": 0}
    body = {"worker_name": url, "check_heart_beat": True, "worker_status": status, **more}
    return post(server.url + "/register_worker", body)


def address(server, model):
    return post(server.url + "/get_worker_address", {"model": model}).json()["address"]


def models(server):
    return post(server.url + "/list_models").json()["models"]


def test_a_worker_is_registered_found_and_expires(make_stack):
    clock = Clock()
    _, server = make_stack.controller(settings=ControllerSettings(expiration_s=90), now=clock)
    response = announce(server, "http://127.0.0.1:1", "m", "k")
    assert (response.status_code, response.json()) == (200, None)
    assert models(server) == ["k", "m"]
    assert address(server, "m") == "http://127.0.0.1:1"
    assert address(server, "other") == ""
    clock.now = 60
    beat = {"worker_name": "http://127.0.0.1:1", "queue_length": 3}
    assert post(server.url + "/receive_heart_beat", beat).json()["exist"] is True
    clock.now = 150
    status = {"model_names": ["k", "m"], "speed": 1, "queue_length": 3}
    assert post(server.url + "/worker_get_status").json() == status
    clock.now = 150.1
    assert models(server) == []
    assert post(server.url + "/receive_heart_beat", beat).json()["exist"] is False
    assert get(server.url + "/health").json() == {"status": "ok", "workers": 0}


@pytest.mark.parametrize("url", ["", "a:1", "ftp://a:1", "http://", "http://a:x", "file:///etc"])
def test_a_worker_without_a_usable_url_is_refused_with_a_reason(make_stack, url):
    _, server = make_stack.controller()
    response = announce(server, url, "m")
    assert response.status_code == 400
    assert repr(url) in response.json()["text"]
    assert models(server) == []


def test_a_worker_that_does_not_answer_is_refused_with_a_reason(make_stack):
    _, server = make_stack.controller()
    response = announce(server, "http://127.0.0.1:9", "m", worker_status=None)
    assert response.status_code == 400
    assert "127.0.0.1:9" in response.json()["text"]


def test_multimodal_models_are_told_apart(make_stack):
    _, server = make_stack.controller()
    announce(server, "http://127.0.0.1:1", "eyes", multimodal=True)
    announce(server, "http://127.0.0.2:1", "words")
    assert post(server.url + "/list_multimodal_models").json() == {"models": ["eyes"]}
    assert post(server.url + "/list_language_models").json() == {"models": ["words"]}
    assert get(server.url + "/test_connection").json() == "success"


def test_requests_go_round_among_equals_between_heart_beats(make_stack):
    _, server = make_stack.controller()
    for name in (1, 2, 3):
        announce(server, f"http://127.0.0.{name}:1", "m")
    assert sorted(address(server, "m") for _ in range(6)) == sorted(
        [f"http://127.0.0.{name}:1" for name in (1, 2, 3)] * 2
    )


def test_the_controller_forwards_a_stream(stack):
    body = {"model": "echo", "prompt": "你好", "echo": False}
    direct = post(stack.worker_server.url + "/worker_generate_stream", body).content
    forwarded = post(stack.controller_server.url + "/worker_generate_stream", body).content
    assert forwarded == direct


def test_forwarding_without_a_worker_is_one_error_chunk(make_stack):
    _, server = make_stack.controller()
    content = post(server.url + "/worker_generate_stream", {"model": "m"}).content
    error = json.loads(content.removesuffix(b"\0"))
    assert error["error_code"] == 50005
    assert "'m'" in error["text"]


def test_a_worker_that_cannot_be_reached_ranks_last(make_stack):
    stack = make_stack()
    announce(stack.controller_server, "http://127.0.0.1:9", "echo")
    body = {"model": "echo", "prompt": "a", "echo": False}
    answers = [
        post(stack.controller_server.url + "/worker_generate_stream", body).content
        for _ in range(8)
    ]
    failed = [answer for answer in answers if b"127.0.0.1:9" in answer]
    assert len(failed) <= 1
    assert all(b'"finish_reason": "stop"' in answer for answer in answers if answer not in failed)


def test_leaving_a_forwarded_stream_stops_the_engine(make_stack):
    stack = make_stack(Script(gate=asyncio.Event()))
    body = {"model": "echo", "prompt": "a"}
    with left_behind(stack.controller_server, "/worker_generate_stream", body):
        assert stack.engine.starts.acquire(timeout=20)
    assert stack.engine.ends.acquire(timeout=20)
    assert len(stack.engine.aborted) == 1


def test_refreshing_asks_all_workers_and_keeps_the_busy_ones(make_stack):
    stack = make_stack()
    server = stack.controller_server
    announce(server, "http://127.0.0.1:9", "quiet")
    announce(server, "http://127.0.0.1:10", "manual", check_heart_beat=False)
    assert post(server.url + "/refresh_all_workers").json() is None
    assert models(server) == ["echo", "quiet"]


def test_a_worker_may_start_before_its_controller(make_stack):
    served, _ = make_served()
    reserved = ReservedPort()
    make_stack.worker(served, reserved.url)
    controller, server = make_stack.controller(reserved=reserved)
    controller.await_worker()
    assert models(server) == ["echo"]


def test_a_forgotten_worker_registers_again(make_stack):
    stack = make_stack()
    worker = stack.worker_server.url
    registry = stack.controller.registry
    stack.controller_server.call(registry._workers.clear)
    stack.controller.await_worker()
    assert registry.addresses() == [worker]


def test_heart_beats_tell_the_queue(make_stack):
    stack = make_stack()
    assert address(stack.controller_server, "echo") == stack.worker_server.url
    until(lambda: stack.controller.registry.total().queue_length == 0)


def test_a_controller_can_be_the_worker_of_another(make_stack):
    stack = make_stack()
    _, upper = make_stack.controller()
    response = announce(upper, stack.controller_server.url, worker_status=None)
    assert response.status_code == 200
    body = {"model": "echo", "prompt": "hi", "echo": False}
    content = post(upper.url + "/worker_generate_stream", body).content
    assert b'"text": "hi"' in content


def test_a_worker_can_be_registered_by_hand(make_stack, capsys):
    served, _ = make_served()
    worker = make_stack.worker(served, None)
    _, server = make_stack.controller()
    register_worker.main(["--controller", server.url, "--worker", worker.url])
    assert worker.url in capsys.readouterr().out
    assert models(server) == ["echo"]
