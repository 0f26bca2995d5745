"""Workers of several models, and workers whose models run behind another API."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from fastchat.conversation import get_conv_template
from fastchat.engine.echo import Script
from fastchat.errors import SettingsError
from fastchat.serve import huggingface_api_worker, multi_model_worker
from fastchat.serve.worker.app import WorkerSettings, worker_app
from fastchat.serve.worker.remote import RemoteModel, RemoteWorker
from fastchat.serve.worker.settings import ServedAdapter
from tests.serve.harness import QUICK, make_served, post, until
from tests.serve.test_controller import models

HELLO = [{"role": "user", "content": "hello 你好"}]


def wished(*flags):
    return multi_model_worker.wishes(multi_model_worker.parser().parse_args(flags))


def test_each_model_has_its_names_and_its_template():
    found = wished(
        *("--model-path", "/m/a", "--model-names", "a,alias"),
        *("--model-path", "/m/b/", "--model-names", "b", "--conv-template", "yuan2"),
    )
    assert [(wish.path, wish.names, wish.conv_template) for wish in found] == [
        ("/m/a", ["a", "alias"], "yuan2"),
        ("/m/b/", ["b"], "yuan2"),
    ]
    assert [wish.names for wish in wished("--model-path", "/m/a", "--model-path", "b")] == [
        ["a"],
        ["b"],
    ]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--model-path", "a", "--model-path", "b", "--model-names", "x"], "--model-names"),
        (["--model-path", "m/a", "--model-path", "n/a"], "'a'"),
    ],
)
def test_flags_that_leave_a_model_out_are_refused(flags, reason):
    with pytest.raises(SettingsError, match=reason):
        wished(*flags)


def test_adapters_share_the_model_that_they_belong_to(tmp_path):
    base, lora, alone = (tmp_path / name for name in ("base", "lora", "alone"))
    for folder in (base, lora, alone):
        folder.mkdir()
    for folder, of in ((lora, base), (alone, tmp_path / "elsewhere")):
        config = {"base_model_name_or_path": str(of)}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    paths = [part for folder in (lora, base, alone) for part in ("--model-path", str(folder))]
    wholes, adapters = multi_model_worker.with_adapters(wished(*paths))
    assert [wish.names for wish in wholes] == [["base"], ["alone"]]
    assert adapters == {"lora": ServedAdapter("base", str(lora))}


@pytest.fixture
def remote(make_stack):
    """A second stack's API in front of a worker that forwards to the first stack's API."""

    def start(script=None, **api):
        inner = make_stack(script, api=api)
        controller, server = make_stack.controller()
        model = RemoteModel(
            "echo",
            inner.api_server.url + "/v1",
            "key-1" if api else "",
            1024,
            get_conv_template("api_based_default"),
        )

        def make_app(url):
            settings = WorkerSettings(["far"], url, server.url, pace=QUICK)
            return worker_app(RemoteWorker({"far": model}, settings))

        worker = make_stack.serve(make_app)
        controller.await_worker()
        _, outer = make_stack.api(server.url)
        until(lambda: models(server) == ["far"])

        def ask(path="/v1/chat/completions", **body):
            return post(outer.url + path, {"model": "far", **body})

        return SimpleNamespace(ask=ask, inner=inner, worker=worker)

    return start


def test_a_remote_model_answers_as_if_it_were_here(remote):
    chain = remote(api_keys=["key-1"])
    answer = chain.ask(messages=HELLO, max_tokens=50, temperature=0.5).json()
    assert answer["choices"][0]["message"]["content"] == "hello 你好"
    assert answer["usage"]["completion_tokens"] == 13
    sampling = chain.inner.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.max_new_tokens) == (0.5, 50)
    text = chain.ask(messages=HELLO, stream=True).text
    told = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    pieces = [event["choices"][0]["delta"].get("content", "") for event in told]
    assert "".join(pieces) == "hello 你好"


def test_a_remote_completion_and_embedding(remote):
    chain = remote()
    assert chain.ask("/v1/completions", prompt="ab", max_tokens=1).json()["choices"][0] == {
        "index": 0,
        "text": "a",
        "logprobs": None,
        "finish_reason": "length",
    }
    assert len(chain.ask("/v1/embeddings", input=["a", "b"]).json()["data"]) == 2
    echoed = post(
        chain.worker.url + "/worker_generate", {"model": "far", "prompt": "ab", "echo": True}
    )
    assert echoed.json()["text"] == "abab"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"messages": HELLO, "max_tokens": 5000}, 400),
        ({"messages": HELLO, "guided_regex": "a"}, 400),
    ],
)
def test_what_the_other_side_refuses_is_told(remote, body, status):
    response = remote().ask(**body)
    assert response.status_code == status


def test_an_error_in_the_middle_of_a_remote_stream_is_told(remote):
    text = remote(Script(fail_after=4)).ask(messages=HELLO, stream=True).text
    assert "scripted failure" in text


def test_a_file_says_which_models_are_where(tmp_path):
    file = tmp_path / "models.json"
    entry = {"model_path": "m", "api_base": "http://a/v1/", "context_length": 9, "token": "t"}
    file.write_text(json.dumps({"one": entry, "two": {**entry, "model_names": "x, y"}}))
    found = huggingface_api_worker.read_models(str(file))
    assert sorted(found) == ["one", "x", "y"]
    assert (found["x"].api_base, found["x"].token) == ("http://a/v1", "t")
    file.write_text(json.dumps({"one": {"model_path": "m"}}))
    with pytest.raises(SettingsError, match="api_base"):
        huggingface_api_worker.read_models(str(file))


def test_a_name_that_is_no_adapters_is_refused_where_there_are_adapters(make_stack):
    served, engine = make_served()
    adapters = {"tuned": ServedAdapter("echo", "/adapters/one")}
    server = make_stack.worker(served, None, adapters=adapters)

    def ask(model):
        body = {"model": model, "prompt": "a", "echo": False}
        return post(server.url + "/worker_generate", body).json()["error_code"]

    assert [ask(name) for name in ("echo", "tuned", "other")] == [0, 0, 40301]
    assert [request.adapter for request in engine.requests] == [None, "tuned"]
    assert engine.adapters == ["tuned"]
