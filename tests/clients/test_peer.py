"""Parts of this project mixed with FastChat's own from PyPI, in both directions."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.serve.conftest import _running
from tests.serve.harness import ReservedPort, get, make_served, post, until
from tests.serve.test_controller import models

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hello, 你好"}]}


@pytest.fixture(scope="module")
def peer(environment, tmp_path_factory):
    """Starts a module or script of the other FastChat on a free port; gives its URL."""
    python = environment("peer-requirements.txt") / "python"
    folder = tmp_path_factory.mktemp("peer")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    @contextmanager
    def start(*command):
        reserved = ReservedPort()
        reserved.socket.close()
        port = reserved.url.rpartition(":")[2]
        filled = [part.replace("PORT", port) for part in command]
        with subprocess.Popen(
            [python, *filled], env=clean, cwd=folder, stderr=subprocess.DEVNULL
        ) as process:
            try:
                until(lambda: process.poll() is None and _listens(reserved.url))
                yield reserved.url
            finally:
                process.kill()

    return start


def _listens(url):
    try:
        get(url)
    except httpx2.TransportError:
        return False
    return True


def controller(port_flag="--port"):
    return ("-m", "fastchat.serve.controller", "--host", "127.0.0.1", port_flag, "PORT")


def api(controller_url):
    flags = ("--host", "127.0.0.1", "--port", "PORT", "--controller-address", controller_url)
    return ("-m", "fastchat.serve.openai_api_server", *flags)


def streamed(url, **more):
    text = post(url, {**CHAT, "stream": True, **more}).text
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def test_our_worker_under_their_controller_and_api(peer):
    with ExitStack() as running, _running() as maker:
        controller_url = running.enter_context(peer(*controller()))
        served, engine = make_served()
        maker.worker(served, controller_url)
        until(lambda: post(controller_url + "/list_models").json()["models"] == ["echo"])
        chat = running.enter_context(peer(*api(controller_url))) + "/v1/chat/completions"
        whole = post(chat, CHAT).json()
        assert whole["choices"][0]["message"]["content"] == "Hello, 你好"
        assert streamed(chat) == "Hello, 你好"
        assert post(chat, {**CHAT, "max_tokens": 5}).json()["choices"][0]["finish_reason"] == (
            "length"
        )
        assert len(engine.requests) == 3
        maker.stop_all_soon()


def test_our_api_before_their_controller(peer):
    with ExitStack() as running, _running() as maker:
        controller_url = running.enter_context(peer(*controller()))
        served, _ = make_served()
        maker.worker(served, controller_url)
        _, ours = maker.api(controller_url)
        until(lambda: post(controller_url + "/list_models").json()["models"] == ["echo"])
        chat = ours.url + "/v1/chat/completions"
        assert streamed(chat) == "Hello, 你好"
        maker.stop_all_soon()


def test_their_worker_under_our_controller_and_api(peer):
    with ExitStack() as running, _running() as maker:
        _, ours = maker.controller()
        script = str(Path(__file__).with_name("peer_worker.py"))
        running.enter_context(peer(script, "PORT", ours.url))
        until(lambda: models(ours) == ["echo"])
        _, api_server = maker.api(ours.url)
        chat = api_server.url + "/v1/chat/completions"
        whole = post(chat, CHAT).json()["choices"][0]
        assert whole["message"]["content"].startswith("Hello, 你好")
        assert streamed(chat) == whole["message"]["content"]
        theirs = running.enter_context(peer(*api(ours.url))) + "/v1/chat/completions"
        assert streamed(theirs) == whole["message"]["content"]
        maker.stop_all_soon()
