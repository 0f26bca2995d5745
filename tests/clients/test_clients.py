"""Clients that others wrote, against the whole chain: langchain, LiteLLM, llm, schemathesis.

They live in an environment of their own, which is made once and kept; needs a package index.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fastchat.engine.echo import echo_model
from tests.clients.obedient import ObedientEngine
from tests.serve.conftest import _running

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def clients(environment):
    """The folder of programs of an environment that has the clients."""
    return environment("requirements.txt")


@pytest.fixture(scope="module")
def server():
    """The URL of a chain whose engine does what it is asked."""
    with _running() as maker:
        served = echo_model()
        engine = ObedientEngine(served.codec, context_length=65536)
        controller, controller_server = maker.controller()
        maker.worker(replace(served, engine=engine), controller_server.url)
        _, api = maker.api(controller_server.url)
        controller.await_worker()
        yield api.url


def run(command, url, folder=None, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean |= {"BASE_URL": f"{url}/v1", "NO_PROXY": "*", "LANGSMITH_TRACING": "false"}
    done = subprocess.run(
        [str(part) for part in command],
        env=clean | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_langchains_standard_tests(clients, server, tmp_path):
    options = ("asyncio_default_test_loop_scope=session", "asyncio_mode=auto")
    set_options = [part for option in options for part in ("-o", option)]
    pytest_command = [clients / "python", "-m", "pytest", "-q", "-c", os.devnull]
    isolated = ["--rootdir", tmp_path, "-p", "no:cacheprovider", "-p", "no:socket"]
    told = run(
        [*pytest_command, *isolated, *set_options, HERE / "langchain_suite.py"],
        server,
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert " passed" in told


def test_litellm(clients, server):
    assert run([clients / "python", HERE / "litellm_suite.py"], server).endswith("fine\n")


def test_llm_the_command(clients, server, tmp_path):
    model = {
        "model_id": "yuan2",
        "model_name": "echo",
        "api_base": f"{server}/v1",
        "supports_schema": True,
        "supports_tools": True,
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))
    llm = [clients / "llm", "prompt", "-m", "yuan2", "--key", "x"]
    where = {"LLM_USER_PATH": str(tmp_path)}
    assert run([*llm, "How are you?"], server, **where) == "Hello. How are you?\n"
    assert run([*llm, "--no-stream", "Hi"], server, **where) == "Hello. Hi\n"
    asked = run([*llm, "--schema", "size int", "What is 7?"], server, **where)
    assert json.loads(asked) == {"size": 7}


def test_schemathesis_finds_no_answer_that_is_not_documented(clients, server, tmp_path):
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    checks += ",response_schema_conformance"
    run(
        [
            *(clients / "st", "run", f"{server}/openapi.json", "--url", server),
            *("--checks", checks, "--max-examples", "25", "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing", "--workers", "2", "--no-color"),
            *("--generation-database", "none", "--report-dir", tmp_path),
        ],
        server,
        tmp_path,
    )
