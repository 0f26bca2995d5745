"""Bodies that no handler should see, and what keys may use up."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.errors import RequestError, SettingsError
from fastchat.serve.openai.bodies import MAX_DEPTH, check_text, depth
from fastchat.serve.openai.limits import Allowance, ApiKey, Bucket
from fastchat.serve.openai.settings import read_api_keys
from tests.serve.harness import PATIENCE_S

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"

JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def nesting(value):
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(nesting, inner), default=0) if isinstance(value, list | dict) else 0


@given(JSON)
def test_depth_is_that_of_the_value_whatever_its_texts_hold(value):
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert depth(body) == nesting(value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff{}", "UTF-8"),
        (b"[" * 100_000, "levels"),
        (b'{"a":' * 100, "levels"),
        (b'{"a": "\\ud800"}', "surrogate"),
    ],
)
def test_malformed_bodies_are_400(stack, body, reason):
    response = stack.post(PATH, None, content=body)
    assert (response.status_code, response.json()["code"]) == (400, 40001)
    assert reason in response.json()["message"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_whole_pairs_and_brackets_in_texts_pass():
    check_text(b'{"a": "\\ud83d\\ude00"}')
    check_text(json.dumps({"a": "[{" * 1000}).encode())
    with pytest.raises(RequestError):
        check_text(b"[" * (MAX_DEPTH + 1))


def test_a_body_beyond_the_limit_is_413(make_stack):
    stack = make_stack(api={"max_body_bytes": 200})
    assert stack.post(PATH, CHAT).status_code == 200
    announced = stack.post(PATH, {**CHAT, "user": "x" * 200})
    assert (announced.status_code, announced.json()["error"]["code"]) == (413, "request_too_large")

    def pieces():
        for _ in range(50):
            yield b"x" * 100

    assert stack.post(PATH, None, content=pieces()).status_code == 413


def test_a_body_that_does_not_come_is_408(make_stack):
    stack = make_stack(api={"body_timeout_s": 0.05})
    host, port = stack.api_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_an_answer_tells_the_requests_id(stack):
    response = stack.post(PATH, CHAT, headers={"X-Request-ID": "mine"})
    assert response.json()["id"] == "chatcmpl-mine"


def test_a_bucket_refills_steadily_and_may_be_overdrawn():
    bucket = Bucket(60)
    assert bucket.wait_s(1, now=0) == 0
    bucket.take(90, now=0)
    assert bucket.wait_s(1, now=0) == 31
    assert bucket.wait_s(1, now=31) == 0
    assert bucket.wait_s(60, now=1000) == 0
    assert bucket.wait_s(61, now=1000) == 0


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 20))
def test_no_more_than_the_limit_passes_in_any_minute(gaps, limit):
    allowance, now, passed = Allowance(ApiKey("k", requests_per_minute=limit)), 0.0, []
    for gap in gaps:
        now += gap
        if allowance.wait_s(now=now) == 0:
            allowance.request(now=now)
            passed.append(now)
    for start in passed:
        # A full allowance at once, and what a minute earns.
        assert len([at for at in passed if start <= at < start + 60]) <= 2 * limit


def test_a_key_that_is_used_up_is_429_and_other_keys_are_not(make_stack):
    keys = [
        ApiKey("a", "few", requests_per_minute=1),
        ApiKey("b", "short", tokens_per_minute=5),
        ApiKey("c", "free"),
    ]
    stack = make_stack(api={"api_keys": keys})

    def status(key):
        response = stack.post(PATH, CHAT, headers={"Authorization": f"Bearer {key}"})
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["code"] == 42901
        return response.status_code

    assert [status("a"), status("a")] == [200, 429]
    assert [status("b"), status("b")] == [200, 429]
    assert [status("c"), status("c")] == [200, 200]


def test_keys_with_names_and_limits_are_read():
    text = '["x", {"key": "y", "name": "me", "requests_per_minute": 3}]'
    assert read_api_keys(text) == [ApiKey("x"), ApiKey("y", "me", 3)]
    for bad in ('[{"name": "a"}]', '[{"key": "a", "limit": 1}]', "[1]", '[{"key": ""}]'):
        with pytest.raises(SettingsError, match="Entry 0"):
            read_api_keys(bad)


def test_tokens_travel_both_ways(stack):
    messages = [{"role": "user", "content": "hi<sep>"}]
    told = stack.post("/tokenize", {"model": "echo", "messages": messages}).json()
    assert told == {
        "count": 8,
        "max_model_len": 1024,
        "tokens": [*b"hi<sep>", 257],
        "token_strs": None,
    }
    asked = {"model": "echo", "prompt": "a<sep>", "return_token_strs": True}
    assert stack.post("/tokenize", asked).json()["token_strs"] == ["a", "<sep>"]
    back = stack.post("/detokenize", {"model": "echo", "tokens": [97, 257]})
    assert back.json() == {"prompt": "a<sep>"}
    assert stack.post("/detokenize", {"model": "echo", "tokens": [-1]}).status_code == 400
    assert stack.post("/tokenize", {"model": "echo"}).status_code == 400
    assert stack.post("/tokenize", {"model": "no", "prompt": "a"}).status_code == 404
