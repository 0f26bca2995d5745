"""Services as child processes: ready when they say so, reported when they fail, gone at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from openai import OpenAI

from fastchat.demo.command import MODEL_NAME, serve
from fastchat.demo.finetune import base_folder
from fastchat.errors import FastChatError
from fastchat.serve.processes import Service, Services, free_ports


def controller(port: int, name: str = "controller") -> Service:
    return Service(
        name,
        "fastchat.serve.controller",
        ["--host", "127.0.0.1", "--port", str(port)],
        f"http://127.0.0.1:{port}/health",
    )


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_service_is_up_until_the_context_ends(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Services(tmp_path) as services:
        pid = services.start(controller(port))
        services.wait_until_ready(60)
        assert is_running(pid)
    assert not is_running(pid)
    assert "Uvicorn running on" in (tmp_path / "controller.log").read_text()


def test_a_service_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Services(tmp_path) as services:
        services.start(controller(port))
        services.wait_until_ready(60)
        services.start(
            Service(
                "second",
                "fastchat.serve.controller",
                ["--host", "127.0.0.1", "--port", str(port)],
                "http://127.0.0.1:9/health",
            )
        )
        with pytest.raises(FastChatError, match=rf"(?s)second ended with status 1.*{port}"):
            services.wait_until_ready(60)
        with pytest.raises(FastChatError, match="second ended"):
            services.wait_until_one_ends()


def test_a_service_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "stubborn.py"
    folder.write_text(
        "import http.server, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "http.server.test(HandlerClass=http.server.SimpleHTTPRequestHandler,\n"
        "                 port=int(sys.argv[1]), bind='127.0.0.1')\n"
    )
    (port,) = free_ports(1)
    services = Services(tmp_path)
    pid = services.start(
        Service(
            "stubborn",
            "stubborn",
            [str(port)],
            f"http://127.0.0.1:{port}/",
            {"PYTHONPATH": str(tmp_path)},
        )
    )
    services.wait_until_ready(60)
    services.stop(grace_s=0.2)
    assert not is_running(pid)


@pytest.mark.slow
def test_the_whole_stack_answers_an_openai_client(tmp_path: Path) -> None:
    with Services(tmp_path) as services:
        url = serve(services, base_folder(), "127.0.0.1", 0)
        client = OpenAI(base_url=f"{url}/v1", api_key="EMPTY")
        assert [model.id for model in client.models.list()] == [MODEL_NAME]
        messages = [{"role": "user", "content": "你好"}]
        whole = client.chat.completions.create(
            model=MODEL_NAME, messages=messages, temperature=0, max_tokens=16
        )
        stream = client.chat.completions.create(
            model=MODEL_NAME, messages=messages, temperature=0, max_tokens=16, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == whole.choices[0].message.content
        client.close()
