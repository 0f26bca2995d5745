"""vllm_worker behind our controller and API: each request gets what our own worker answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh has it")

from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings
from fastchat.protocol.worker import RegisterWorker
from tests.serve.harness import StackMaker, post
from tests.vllm.conftest import WorkerProcess

OURS, THEIRS = "ours", "theirs"
DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "你好 hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "tell me <eod> more"},
]
PASSING = ("id", "created", "model", "prompt_tokens_details")
SAMPLING = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def api(small_folder: Path, worker_process: WorkerProcess) -> Iterator[str]:
    """A controller, our worker, the worker that runs vLLM, and the API server in front."""
    served = load_served_model(
        str(small_folder), device="cpu", engine=EngineSettings(cache_tokens=4096)
    )
    with ExitStack() as running:
        maker = StackMaker(running)
        controller, server = maker.controller()
        maker.worker(served, server.url, model_names=[OURS])
        controller.await_worker()
        worker_process.wait_until_ready()
        post(
            server.url + "/register_worker",
            RegisterWorker(worker_name=worker_process.url, check_heart_beat=False).model_dump(),
        ).raise_for_status()
        _, front = maker.api(server.url)
        yield front.url
        maker.stop_all_soon()


@pytest.fixture(scope="module")
def client(api: str) -> Iterator[openai.OpenAI]:
    transport = httpx2.Client(timeout=60, trust_env=False)
    with openai.OpenAI(
        api_key="EMPTY", base_url=f"{api}/v1", max_retries=0, http_client=transport
    ) as found:
        yield found


def bare(answer: Any) -> Any:
    """What an answer says, without what names it and what happened to be in a cache."""
    if isinstance(answer, dict):
        return {k: bare(v) for k, v in answer.items() if k not in PASSING}
    return [bare(each) for each in answer] if isinstance(answer, list) else answer


def about(answer: Any) -> Any:
    """The same, with numbers taken as near enough."""
    if isinstance(answer, dict):
        return {key: about(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [about(each) for each in answer]
    return pytest.approx(answer, abs=2e-4) if isinstance(answer, float) else answer


def both(api: str, path: str, body: dict[str, Any]) -> tuple[httpx2.Response, httpx2.Response]:
    ours, theirs = (post(api + path, {"model": model, **body}) for model in (OURS, THEIRS))
    assert ours.status_code == theirs.status_code
    return ours, theirs


SHAPE = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
SCHEMA = {"name": "pet", "schema": SHAPE, "strict": True}
TOOL = {"type": "function", "function": {"name": "feed", "parameters": SHAPE}}

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a stop string": {"stop": ["e", "a"]},
    "several answers": {"n": 3},
    "log-probabilities": {"logprobs": True, "top_logprobs": 3},
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
    "a bias": {"logit_bias": {"9": 100}},
    "top_p 0": {"temperature": 1, "top_p": 0},
    "a least length": {"min_tokens": 8},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "a tool": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 100},
    "no run twice": {"no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
def test_chat(api: str, more: dict[str, Any]) -> None:
    ours, theirs = both(api, "/v1/chat/completions", {"messages": DIALOGUE, **SAMPLING, **more})
    assert ours.status_code == 200
    assert theirs.json()["model"] == THEIRS
    assert bare(theirs.json()) == about(bare(ours.json()))


COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "once upon"},
    "token ids": {"prompt": [5, 6, 7]},
    "several": {"prompt": ["one", "two"], "n": 2},
    "echo": {"prompt": "once upon", "echo": True, "logprobs": 2},
    "special text": {"prompt": "a<sep>b"},
    "the best of several": {"prompt": "x", "best_of": 2},
}


@pytest.mark.parametrize("more", COMPLETIONS.values(), ids=COMPLETIONS)
def test_completions(api: str, more: dict[str, Any]) -> None:
    ours, theirs = both(api, "/v1/completions", {**SAMPLING, **more})
    assert ours.status_code == 200
    assert bare(theirs.json()) == about(bare(ours.json()))


@pytest.mark.parametrize("model", [OURS, THEIRS])
def test_streamed_equals_whole(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "messages": DIALOGUE, **SAMPLING}
    whole = client.chat.completions.create(**asked).choices[0]
    events = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(e.choices[0].delta.content or "" for e in events) == whole.message.content
    assert events[-1].choices[0].finish_reason == whole.finish_reason


def test_a_seed_makes_answers_repeat(client: openai.OpenAI) -> None:
    def answer(seed: int) -> str | None:
        asked = {"model": THEIRS, "messages": DIALOGUE, "temperature": 1.5, "max_tokens": 20}
        return client.chat.completions.create(**asked, seed=seed).choices[0].message.content

    assert answer(1) == answer(1) != answer(2)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "too long": ("/v1/completions", {"prompt": [5] * 700}),
    "too much": ("/v1/completions", {"prompt": [5] * 600, "max_tokens": 100}),
    "an unknown token": ("/v1/completions", {"prompt": [10**6]}),
    "a wrong value": ("/v1/chat/completions", {"messages": DIALOGUE, "top_p": 2}),
}


@pytest.mark.parametrize(("path", "body"), REFUSED.values(), ids=REFUSED)
def test_both_refuse_alike(api: str, path: str, body: dict[str, Any]) -> None:
    ours, theirs = both(api, path, body)
    assert ours.status_code == 400
    assert ours.json()["error"] == theirs.json()["error"]


def test_what_vllm_lacks_is_the_clients_error(api: str) -> None:
    answer = post(api + "/v1/embeddings", {"model": THEIRS, "input": "text"})
    assert answer.status_code == 400
    assert "vLLM" in answer.json()["error"]["message"]


def test_tokens_and_models(api: str) -> None:
    for body in ({"prompt": "你好 hello"}, {"messages": DIALOGUE}):
        ours, theirs = both(api, "/tokenize", body)
        assert ours.json() == theirs.json()
    found = httpx2.get(f"{api}/v1/models", trust_env=False).json()
    assert {model["id"] for model in found["data"]} == {OURS, THEIRS}


def test_the_worker_counts_as_ours_does(worker_process: WorkerProcess, api: str) -> None:
    text = httpx2.get(f"{worker_process.url}/metrics", trust_env=False).text
    assert "fastchat:generation_tokens_total" in text
