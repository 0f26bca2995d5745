"""Computed beginnings, by real engines: told in every answer, and found again over two workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import set_seed

import fastchat
from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer
from fastchat.serve.cluster.app import ControllerSettings
from tests.serve.harness import get, post, until

CHATS, TURNS = 10, 4
LONG = "Tell me more of the rivers, the mountains and the towns of this country. " * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Yuan2 with random weights and the demo's tokenizer."""
    made = tmp_path_factory.mktemp("tiny")
    tokenizer = load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")
    set_seed(1)
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    config = YuanConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,
        **ends,
    )
    YuanForCausalLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def start(make_stack, folder):
    """Starts so many workers under a controller that knows beginnings; returns workers and API."""

    def started(count):
        settings = ControllerSettings(dispatch_method="prefix")
        controller, server = make_stack.controller(settings=settings)
        workers = []
        for _ in range(count):
            engine = EngineSettings(cache_tokens=1 << 15, threads=1)
            served = load_served_model(str(folder), device="cpu", engine=engine)
            workers.append(make_stack.worker(served, server.url, model_names=["tiny"]))
            controller.await_worker()
        _, api = make_stack.api(server.url)
        return workers, api

    return started


def ask(api, path, **body):
    answer = post(f"{api.url}/v1/{path}", {"model": "tiny", "temperature": 0, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_kind_of_answer_tells_what_was_found(start):
    _, api = start(1)
    messages = [{"role": "user", "content": LONG}]
    kinds = {
        "chat/completions": {"messages": messages, "max_tokens": 2},
        "completions": {"prompt": f"It says: {LONG}", "max_tokens": 2},
        "responses": {"input": LONG, "max_output_tokens": 2},
    }
    told = {}
    for path, body in kinds.items():
        first, again = (ask(api, path, **body)["usage"] for _ in range(2))
        details = "input_tokens_details" if path == "responses" else "prompt_tokens_details"
        told[path] = (first[details]["cached_tokens"], again[details]["cached_tokens"])
    for path, (_, again) in told.items():
        assert again > 0, path
    assert told["chat/completions"][0] == told["completions"][0] == 0
    assert told["responses"][0] == told["chat/completions"][1]  # the same prompt


def test_two_workers_find_as_much_again_as_one(start):
    shares = {}
    for count in (1, 2):
        workers, api = start(count)
        chats = [[{"role": "user", "content": f"{n:03d} {LONG}"}] for n in range(CHATS)]
        for _ in range(TURNS):
            for messages in chats:
                answer = ask(
                    api, "chat/completions", messages=messages, max_tokens=8, ignore_eos=True
                )
                messages.append(answer["choices"][0]["message"])
                messages.append({"role": "user", "content": f"And then? {LONG}"})
        counts = [_counts(worker) for worker in workers]
        assert all(queries for queries, _ in counts)  # nobody is left out
        shares[count] = sum(hits for _, hits in counts) / sum(asked for asked, _ in counts)
    assert shares[1] > 0.5
    assert shares[2] >= 0.9 * shares[1]


def test_the_times_in_line_and_of_the_prompt_are_counted(start):
    (worker,), api = start(1)
    ask(api, "chat/completions", messages=[{"role": "user", "content": LONG}], max_tokens=2)

    def counted(name):
        line = f'fastchat:request_{name}_time_seconds_count{{model_name="tiny"}} 1.0'
        return line in get(worker.url + "/metrics").text

    for name in ("queue", "prefill", "decode"):
        until(lambda name=name: counted(name))


def _counts(worker):
    """Prompt tokens looked up at a worker, and those found."""
    lines = get(worker.url + "/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return tuple(
        float(values[f'fastchat:prefix_cache_{name}_total{{model_name="tiny"}}'])
        for name in ("queries", "hits")
    )
