"""A worker in FastChat's wire format, asked without the API server."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from fastchat.conversation import SeparatorStyle
from fastchat.engine.echo import Script
from fastchat.serve.worker.app import WorkerSettings, create_worker_app
from fastchat.serve.worker.settings import ServedAdapter
from tests.serve.harness import PATIENCE_S, get, left_behind, make_served, post, until


@pytest.fixture
def wire(make_stack):
    """Starts a worker that knows no controller; asks it."""

    def start(script=None, *, worker=None, **model):
        served, engine = make_served(script, **model)
        server = make_stack.worker(served, None, **(worker or {}))

        def ask(path, body=None):
            return post(server.url + path, body)

        ask.engine, ask.url = engine, server.url
        return ask

    return start


def chunks(response):
    *frames, rest = response.content.split(b"\0")
    assert rest == b""
    return [json.loads(frame) for frame in frames]


def test_a_stream_is_cumulative_and_its_last_chunk_stands_alone(wire):
    ask = wire(worker={"stream_interval": 1})
    *told, last = chunks(ask("/worker_generate_stream", {"prompt": "你好", "echo": False}))
    assert [chunk["text"] for chunk in told] == ["你", "你好"]
    assert {chunk["finish_reason"] for chunk in told} == {None}
    assert last["text"] == "你好"
    assert last["finish_reason"] == "stop"
    assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 7, "total_tokens": 13}
    assert {chunk["error_code"] for chunk in (*told, last)} == {0}
    assert told[0]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(("interval", "sizes"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (9, [1, 5])])
def test_the_first_text_comes_at_once_and_then_every_few_tokens(wire, interval, sizes):
    ask = wire(worker={"stream_interval": interval})
    *told, _ = chunks(ask("/worker_generate_stream", {"prompt": "hello", "echo": False}))
    assert [len(chunk["text"]) for chunk in told] == sizes


def test_echo_is_on_unless_it_is_turned_off(wire):
    ask = wire()
    assert ask("/worker_generate", {"prompt": "ab"}).json()["text"] == "abab"
    messages = [{"role": "user", "content": "ab"}]
    assert ask("/worker_generate", {"messages": messages}).json()["text"] == "ab<sep>ab"
    assert ask("/worker_generate", {"token_ids": [97]}).json()["text"] == "aa"


def test_the_whole_answer_is_the_last_chunk(wire):
    ask = wire()
    body = {"prompt": "hello", "max_new_tokens": 3, "echo": False}
    *_, last = chunks(ask("/worker_generate_stream", body))
    assert ask("/worker_generate", body).json() == last
    assert (last["text"], last["finish_reason"]) == ("hel", "length")


def test_messages_win_over_the_prompt_and_bring_the_templates_stops(wire):
    ask = wire()
    body = {
        "prompt": "other",
        "messages": [{"role": "user", "content": "a <eod> b"}],
        "stop": ["<eod>", "", " b"],
        "stop_token_ids": [7],
        "echo": False,
    }
    assert ask("/worker_generate", body).json()["text"] == "a <eod>"
    sampling = ask.engine.requests[0].sampling
    assert sampling.stop == (" b",)
    assert sampling.stop_token_ids == (7, 256)


def test_log_probabilities_are_parallel_lists_over_everything_so_far(wire):
    ask = wire(worker={"stream_interval": 1})
    told = chunks(ask("/worker_generate_stream", {"prompt": "ab", "echo": False, "logprobs": 1}))
    lists = [chunk["logprobs"] for chunk in told]
    assert [found["tokens"] for found in lists] == [["a"], ["a", "b"], ["a", "b"]]
    assert lists[-1]["text_offset"] == [0, 1]
    assert lists[-1]["token_logprobs"] == [-0.5, -0.5]
    assert lists[-1]["top_logprobs"][0] == {"<0>": -1.0, "a": -0.5}


def test_a_field_of_the_wrong_type_is_an_error_that_names_it(wire):
    response = wire()("/worker_generate_stream", {"prompt": "a", "temperature": "hot"})
    assert response.status_code == 400
    answer = response.json()
    assert answer["error_code"] == 40001
    assert answer["text"].startswith("temperature: ")


def test_old_fields_that_change_nothing_are_accepted(wire):
    body = {
        "model": "echo",
        "prompt": "hi",
        "temperature": 0.7,
        "top_k": None,
        "stop": None,
        "stop_token_ids": None,
        "images": [],
        "best_of": None,
        "use_beam_search": False,
        "logprobs": None,
        "echo": False,
        "anything": 1,
    }
    assert wire()("/worker_generate", body).json()["text"] == "hi"


def test_the_status_tells_names_and_load(wire):
    ask = wire(worker={"model_names": ["a", "b"]})
    expected = {"model_names": ["a", "b"], "speed": 1.0, "queue_length": 0}
    assert ask("/worker_get_status").json() == expected
    assert get(ask.url + "/health").json() == {
        "status": "ok",
        "model_names": ["a", "b"],
        "running": 0,
        "waiting": 0,
    }


def test_tokens_are_counted_of_a_prompt_or_of_messages(wire):
    ask = wire()
    count = ask("/count_token", {"model": "echo", "prompt": "a<sep>"}).json()
    assert count == {"count": 2, "error_code": 0}
    messages = [{"role": "user", "content": "a<sep>"}]
    assert ask("/count_token", {"messages": messages}).json()["count"] == 7
    assert ask("/count_token", {"prompt": ""}).json()["count"] == 0


def test_the_template_travels_with_a_number_for_its_style(wire):
    conv = wire()("/worker_get_conv_template", {"model": "echo"}).json()["conv"]
    assert conv["name"] == "yuan2"
    assert conv["sep_style"] == SeparatorStyle.YUAN2 == 20
    assert conv["roles"] == ["user", "assistant"]
    assert (conv["sep"], conv["stop_token_ids"]) == ("<sep>", [256])


def test_the_context_length_is_told(wire):
    ask = wire(context_length=77)
    assert ask("/model_details", {"model": "echo"}).json() == {"context_length": 77}


def test_a_limit_that_was_not_asked_for_gives_way_to_the_context(wire):
    ask = wire(Script(answer=lambda _: "x" * 99), context_length=20)
    usage = ask("/worker_generate", {"prompt": "hello"}).json()["usage"]
    assert usage["total_tokens"] == 20
    asked = ask("/worker_generate", {"prompt": "hello", "max_new_tokens": 16}).json()
    assert asked["error_code"] == 40303
    assert "15" in asked["text"]


def test_running_out_of_gpu_memory_has_its_own_code(wire):
    kind = type("OutOfMemoryError", (RuntimeError,), {})
    ask = wire(Script(fail_after=0, failure=kind("CUDA out of memory")))
    answer = ask("/worker_generate", {"prompt": "a"}).json()
    assert answer["error_code"] == 50002
    assert "CUDA out of memory" in answer["text"]


def test_a_failing_embedding_says_why_and_holds_no_slot(wire):
    ask = wire(context_length=4, worker={"limit_worker_concurrency": 1})
    for _ in range(2):
        response = ask("/worker_get_embeddings", {"input": [""]})
        assert response.status_code == 400
        assert "empty" in response.json()["text"]
    answer = ask("/worker_get_embeddings", {"model": "echo", "input": ["ab", "c"]}).json()
    assert answer["token_num"] == 3
    assert len(answer["embedding"]) == 2


def test_deltas_tell_what_is_new_and_add_up(wire):
    ask = wire(worker={"stream_interval": 2})
    body = {"prompt": "你好, Yuan", "echo": True, "logprobs": 1}
    *_, whole = chunks(ask("/worker_generate_stream", body))
    told = chunks(ask("/worker_generate_stream", {**body, "deltas": True}))
    assert all(chunk["delta"] for chunk in told)
    assert "".join(chunk["text"] for chunk in told) == whole["text"]
    for name in ("tokens", "text_offset", "token_logprobs"):
        joined = [value for chunk in told for value in chunk["logprobs"][name]]
        assert joined == whole["logprobs"][name]
    assert told[-1]["usage"] == whole["usage"]


def test_new_fields_reach_the_engine(wire):
    ask = wire(worker={"adapters": {"tuned": ServedAdapter("echo", "/adapters/one")}})
    body = {
        "model": "tuned",
        "prompt": "a",
        "min_p": 0.1,
        "min_new_tokens": 3,
        "no_repeat_ngram": 4,
        "ignore_eos": True,
        "grammar": {"kind": "regex", "text": "a+"},
        "priority": 7,
        "deadline_s": 2.5,
        "cache_salt": "salt",
    }
    ask("/worker_generate", body)
    request = ask.engine.requests[0]
    sampling = request.sampling
    assert (sampling.min_p, sampling.min_new_tokens, sampling.no_repeat_ngram) == (0.1, 3, 4)
    assert sampling.ignore_eos
    assert (sampling.grammar.kind, sampling.grammar.text) == ("regex", "a+")
    assert (request.adapter, request.priority, request.deadline_s) == ("tuned", 7, 2.5)
    assert request.cache_salt == "salt"
    assert ask("/worker_get_status").json()["model_names"] == ["echo", "tuned"]


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "a" * 40},
    {"role": "assistant", "content": "b" * 40},
    {"role": "user", "content": "c" * 30},
    {"role": "assistant", "content": "d"},
    {"role": "user", "content": "e"},
]


def test_the_oldest_turns_are_dropped_where_that_is_asked_for_and_nowhere_else(wire):
    ask = wire(context_length=80)
    body = {"messages": TURNS, "echo": False}
    assert ask("/worker_generate", body).json()["error_code"] == 40303
    for limit, prompt in ((None, "Be brief.\n" + "c" * 30 + "<n>d<n>e"), (60, "Be brief.\ne")):
        answer = ask(
            "/worker_generate", {**body, "truncation": "auto", "max_new_tokens": limit}
        ).json()
        assert answer["error_code"] == 0
        assert bytes(ask.engine.requests[-1].prompt_ids[:-1]).decode() == prompt
    alone = {**body, "messages": [TURNS[1]] * 2 + [{"role": "user", "content": "x" * 99}]}
    assert ask("/worker_generate", {**alone, "truncation": "auto"}).json()["error_code"] == 40303


def test_a_full_line_is_refused_at_once_with_the_time_to_come_back(make_stack):
    served, engine = make_served(Script(gate=asyncio.Event()))
    settings = {"limit_worker_concurrency": 1, "queue_limit": 1}
    server = make_stack.worker(served, None, **settings)
    path = "/worker_generate_stream"
    with left_behind(server, path, {"prompt": "a"}):
        assert engine.starts.acquire(timeout=PATIENCE_S)
        with left_behind(server, path, {"prompt": "b"}):
            until(lambda: get(server.url + "/health").json()["waiting"] == 1)
            refused = post(server.url + path, {"prompt": "c"})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            chunk = json.loads(refused.content.removesuffix(b"\0"))
            assert (chunk["error_code"], chunk["retry_after_s"] >= 1) == (42903, True)


def test_a_request_that_waits_past_its_deadline_is_given_up(make_stack):
    served, engine = make_served(Script(gate=asyncio.Event()))
    server = make_stack.worker(served, None, limit_worker_concurrency=1)
    with left_behind(server, "/worker_generate", {"prompt": "a"}):
        assert engine.starts.acquire(timeout=PATIENCE_S)
        answer = post(server.url + "/worker_generate", {"prompt": "b", "deadline_s": 0.05}).json()
    assert answer["error_code"] == 42903
    assert "0.05 s" in answer["text"]


def test_a_request_inside_the_engine_is_kept_alive_until_its_first_token(make_stack):
    served, engine = make_served(Script(gate=asyncio.Event()))
    server = make_stack.worker(served, None, keep_alive_s=0.01)
    body = {"prompt": "ab", "echo": False}
    with httpx2.stream(
        "POST", f"{server.url}/worker_generate_stream", json=body, trust_env=False
    ) as response:
        pieces = response.iter_raw()
        assert json.loads(next(pieces).split(b"\0")[0])["text"] == ""
        server.call(engine.script.gate.set)
        rest = b"".join(pieces)
    assert b'"text": "ab"' in rest


def test_tokens_travel_both_ways(wire):
    ask = wire()
    answer = ask("/tokenize", {"prompt": "a<sep>"}).json()
    assert answer == {"tokens": [97, 257], "texts": ["a", "<sep>"], "context_length": 1024}
    assert ask("/detokenize", {"tokens": [97, 257]}).json() == {"text": "a<sep>"}
    wrong = ask("/detokenize", {"tokens": [99999]})
    assert (wrong.status_code, wrong.json()["param"]) == (400, "tokens")


def test_metrics_count_what_was_done(wire):
    ask = wire(worker={"stream_interval": 1})
    ask("/worker_generate", {"model": "echo", "prompt": "abc", "echo": False})
    ask("/worker_generate", {"model": "echo", "prompt": ""})
    text = get(ask.url + "/metrics").text
    label = '{model_name="echo"'
    assert 'fastchat:request_success_total{finished_reason="stop",model_name="echo"} 1.0' in text
    assert 'fastchat:request_failure_total{error_code="40302",model_name="echo"} 1.0' in text
    assert f"fastchat:num_requests_running{label}}} 0.0" in text
    assert f"fastchat:time_to_first_token_seconds_count{label}}} 1.0" in text
    assert f"fastchat:inter_token_latency_seconds_count{label}}} 3.0" in text
    assert f"fastchat:request_generation_tokens_sum{label}}} 4.0" in text


def test_several_models_are_served_by_one_process(make_stack):
    one, first = make_served(Script(answer=lambda _: "one"))
    two, second = make_served(Script(answer=lambda _: "two"))
    names = ["a", "b", "alias"]
    server = make_stack.serve(
        lambda url: create_worker_app(
            {"a": one, "b": two, "alias": one}, WorkerSettings(names, worker_address=url)
        )
    )

    def ask(model):
        body = {"model": model, "prompt": "x", "echo": False}
        return post(server.url + "/worker_generate", body).json()

    assert [ask(name)["text"] for name in names] == ["one", "two", "one"]
    assert ask("c")["error_code"] == 40301
    assert (len(first.requests), len(second.requests)) == (2, 1)
    text = get(server.url + "/metrics").text
    assert text.count("# TYPE fastchat:num_requests_running gauge") == 1
    assert 'fastchat:num_requests_running{model_name="b"} 0.0' in text
