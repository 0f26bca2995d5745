"""Processes as users start and stop them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from fastchat.errors import FastChatError, SettingsError
from fastchat.serve.running import TlsFiles, bind
from fastchat.serve.tracing import trace_to
from tests.serve.harness import PATIENCE_S, get, post


def start(module, *flags, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", f"fastchat.serve.{module}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOGDIR": "", **environment},
    )


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def await_line(process, text):
    told = []
    for line in process.stderr:
        told.append(line)
        if text in line:
            return told
    raise AssertionError(f"{text!r} was not said: {told}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_process_says_where_it_runs_and_ends_cleanly(how):
    port = free_port()
    process = start("controller", "--host", "127.0.0.1", "--port", port)
    line = await_line(process, "Uvicorn running on")[-1]
    assert line.split(" | ")[1:3] == ["INFO", "uvicorn.error"]
    assert f"http://127.0.0.1:{port}" in line
    assert post(f"http://127.0.0.1:{port}/list_models").json() == {"models": []}
    process.send_signal(how)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        ("controller", []),
        ("openai_api_server", []),
        ("model_worker", ["--model-path", "/nowhere/at/all"]),
    ],
)
def test_a_port_in_use_is_told_at_once(module, flags):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = start(module, "--host", "127.0.0.1", "--port", port, *flags)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith(f"error: Port {port} on 127.0.0.1 is in use already.")
    assert "Traceback" not in err


def test_a_setting_at_fault_is_status_2():
    process = start("controller", "--ssl", SSL_KEYFILE="", SSL_CERTFILE="")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert err.startswith("error: --ssl needs SSL_KEYFILE")


def test_credentials_with_any_origin_are_refused_at_the_start():
    process = start("openai_api_server", "--allow-credentials")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "--allow-credentials" in err) == (2, True)


def test_log_files_go_to_logdir(tmp_path):
    port = free_port()
    process = start(
        "openai_api_server", "--host", "127.0.0.1", "--port", port, LOGDIR=str(tmp_path)
    )
    await_line(process, "Uvicorn running on")
    assert get(f"http://127.0.0.1:{port}/health").status_code == 503
    process.terminate()
    process.communicate(timeout=PATIENCE_S)
    (file,) = tmp_path.iterdir()
    assert file.name == "openai_api_server.log"
    text = file.read_text(encoding="utf-8")
    assert " | INFO | openai_api_server | args: " in text
    assert "GET /health" in text


def test_keys_are_not_logged():
    port = free_port()
    process = start("openai_api_server", "--port", port, "--api-keys", "top-secret")
    told = await_line(process, "Uvicorn running on")
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE_S)
    assert "top-secret" not in "".join(told) + err


def test_a_bound_port_refuses_clients_until_somebody_listens():
    (sock,) = bind("127.0.0.1", 0)
    with sock, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(sock.getsockname())


def test_a_host_is_bound_on_all_its_addresses():
    sockets = bind("localhost", int(free_port()))
    assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "::1"}
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_refused(host):
    with pytest.raises(FastChatError, match=host):
        bind(host, 0)


def test_tls_files_must_exist(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key", tmp_path / "cert"
    monkeypatch.setenv("SSL_KEYFILE", str(key))
    monkeypatch.setenv("SSL_CERTFILE", str(certificate))
    with pytest.raises(SettingsError, match="SSL_KEYFILE"):
        TlsFiles.from_environment()
    key.touch()
    with pytest.raises(SettingsError, match="SSL_CERTFILE"):
        TlsFiles.from_environment()
    certificate.touch()
    assert TlsFiles.from_environment() == TlsFiles(str(key), str(certificate))


def test_a_trace_goes_through_all_processes_and_tells_no_prompt():
    pytest.importorskip("opentelemetry.sdk")
    done = subprocess.run(
        [sys.executable, "-m", "tests.serve.traced"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    spans = json.loads(done.stdout.splitlines()[-1])
    asked = [span for span in spans if span[1] == "ab" * 16]
    names = {name for name, _, _ in asked}
    assert {"POST /v1/chat/completions", "POST /worker_generate_stream"} <= names
    (chat,) = [each for name, _, each in asked if name == "POST /v1/chat/completions"]
    assert chat["gen_ai.request.model"] == "echo"
    assert chat["gen_ai.usage.output_tokens"] == len("top secret") + 1
    assert "secret" not in done.stdout


def test_traces_without_their_extra_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "x")
    trace_to(None, "api")
    with pytest.raises(SettingsError, match="otel"):
        trace_to("http://127.0.0.1:4318", "api")


def test_a_server_may_hold_more_connections_than_its_shell_allows():
    program = (
        "import resource as r; from fastchat.serve.running import allow_connections;"
        "hard = r.getrlimit(r.RLIMIT_NOFILE)[1];"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, min(hard, 4096)));"
        "allow_connections(); soft, hard = r.getrlimit(r.RLIMIT_NOFILE); assert soft == hard"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
