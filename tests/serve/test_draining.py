"""A process that is asked to end finishes what it does, takes nothing new, and says so."""

from __future__ import annotations

import asyncio
import json

import httpx2

from fastchat.engine.echo import Script
from tests.serve.harness import PATIENCE_S, get, make_served, post, until
from tests.serve.test_controller import models


def test_a_worker_drains_without_breaking_a_stream(make_stack):
    stack = make_stack(Script(gate=asyncio.Event()))
    url = stack.worker_server.url
    body = {"prompt": "hello", "echo": False}
    with httpx2.stream(
        "POST", f"{url}/worker_generate_stream", json=body, trust_env=False, timeout=PATIENCE_S
    ) as running:
        assert stack.engine.starts.acquire(timeout=PATIENCE_S)
        done = stack.worker_server.drain()
        until(lambda: models(stack.controller_server) == [])
        assert get(f"{url}/health/live").status_code == 200
        ready = get(f"{url}/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        refused = post(f"{url}/worker_generate_stream", body)
        assert (refused.status_code, refused.content[-1:]) == (503, b"\0")
        assert json.loads(refused.content[:-1])["error_code"] == 50005
        assert post(f"{url}/worker_generate", body).json()["error_code"] == 50005
        assert not done.done()
        stack.worker_server.call(stack.engine.script.gate.set)
        text = running.read()
    assert b'"finish_reason": "stop"' in text
    done.result(PATIENCE_S)
    assert stack.engine.aborted == []


def test_a_drain_does_not_wait_for_ever(make_stack):
    served, engine = make_served(Script(gate=asyncio.Event()))
    worker = make_stack.worker(served, None, drain_s=0.05)
    with httpx2.stream(
        "POST",
        f"{worker.url}/worker_generate_stream",
        json={"prompt": "a"},
        trust_env=False,
        timeout=PATIENCE_S,
    ):
        assert engine.starts.acquire(timeout=PATIENCE_S)
        worker.drain().result(PATIENCE_S)
