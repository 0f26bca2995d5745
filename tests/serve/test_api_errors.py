"""Everything that can be wrong with a request has its status, its code and its reason."""

from __future__ import annotations

import openai
import pytest

from fastchat.engine.echo import Script
from tests.serve.harness import post

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "echo", "messages": HELLO}


def refused(stack, status, code, **body):
    response = stack.post("/v1/chat/completions", {**CHAT, **body})
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code), answer
    assert answer["object"] == "error"
    assert answer["error"]["message"] == answer["message"]
    return answer["error"]


def test_an_unknown_model_is_404_and_the_known_ones_are_named(stack):
    error = refused(stack, 404, 40301, model="nope")
    assert "nope" in error["message"]
    assert "echo" in error["message"]
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        stack.client.chat.completions.create(model="nope", messages=HELLO)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "wizard", "content": "a"}], "messages[0].role"),
        ([{"content": "a"}], "messages[0].role"),
        ([*HELLO, {"role": "function", "content": "a"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0]",
        ),
    ],
)
def test_messages_that_no_template_takes_are_400(stack, messages, param):
    error = refused(stack, 400, 40302, messages=messages)
    assert error["param"] == param


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("top_k", 0),
        ("n", 0),
        ("max_tokens", 0),
        ("presence_penalty", 3),
        ("repetition_penalty", 0),
        ("top_logprobs", 21),
    ],
)
def test_a_value_out_of_range_is_400_and_told(stack, field, value):
    extra = {"logprobs": True} if field == "top_logprobs" else {}
    error = refused(stack, 400, 40302, **{field: value}, **extra)
    assert error["param"] == field
    assert str(value) in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"seed": 2**63}, "seed"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_what_makes_no_sense_is_400(stack, body, param):
    assert refused(stack, 400, 40302, **body)["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"messages": 5}, "messages"),
        ({"n": 1.5}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ],
)
def test_a_wrong_type_is_40001(stack, body, param):
    assert refused(stack, 400, 40001, **body)["param"].startswith(param)


def test_a_body_that_is_no_json_is_400(stack):
    response = stack.post("/v1/chat/completions", None, content=b"{")
    assert (response.status_code, response.json()["code"]) == (400, 40001)


@pytest.mark.parametrize("stream", [False, True])
def test_an_overlong_prompt_is_40303_even_where_a_stream_was_asked_for(make_stack, stream):
    stack = make_stack(context_length=32)
    messages = [{"role": "user", "content": "x" * 40}]
    error = refused(stack, 400, 40303, messages=messages, stream=stream)
    assert "41" in error["message"]
    assert "32" in error["message"]
    assert error["code"] == "context_length_exceeded"


def test_asking_for_more_than_fits_is_40303_and_says_what_fits(make_stack):
    error = refused(make_stack(context_length=32), 400, 40303, max_tokens=27)
    assert "26" in error["message"]
    assert error["param"] == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_engine_is_500_with_its_reason_and_the_next_request_works(make_stack, stream):
    stack = make_stack(Script(fail_after=0), worker={"limit_worker_concurrency": 1})
    error = refused(stack, 500, 50001, stream=stream)
    assert "scripted failure" in error["message"]
    assert "RuntimeError" in error["message"]
    stack.engine.script = Script()
    answer = stack.client.chat.completions.create(model="echo", messages=HELLO)
    assert answer.choices[0].message.content == "hello"


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(make_stack):
    stack = make_stack(Script(fail_after=4))
    stream = stack.client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    told: list[str] = []
    with pytest.raises(openai.APIError, match="scripted failure"):
        told.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(told) == "hel"
    raw = stack.post("/v1/chat/completions", {**CHAT, "stream": True}).text
    *_, error, done, _ = raw.split("\n\n")
    assert error.startswith('data: {"error": {"message": ')
    assert done == "data: [DONE]"


def test_no_worker_is_503(make_stack):
    _, controller = make_stack.controller()
    _, api = make_stack.api(controller.url)
    response = _post(api, CHAT)
    assert (response.status_code, response.json()["code"]) == (503, 50005)


def test_no_controller_is_503(make_stack):
    _, api = make_stack.api("http://127.0.0.1:9")
    response = _post(api, CHAT)
    assert (response.status_code, response.json()["code"]) == (503, 50005)
    assert "127.0.0.1:9" in response.json()["message"]


def _post(server, body):
    url = server.url + "/v1/chat/completions"
    return post(url, body)


def test_a_worker_that_is_gone_is_503(make_stack):
    stack = make_stack()
    stack.worker_server.__exit__()
    assert "cannot be reached" in refused(stack, 503, 50005)["message"]


def test_a_route_that_is_not_there_is_404_in_openais_form(stack):
    response = stack.post("/v1/nothing", {})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_missing_or_wrong_key_is_401_everywhere(make_stack):
    stack = make_stack(api={"api_keys": ["key-1", "key-2"]})
    for header in (None, "Bearer wrong", "Basic a2V5", "Bearer"):
        headers = {} if header is None else {"Authorization": header}
        for path in ("/v1/chat/completions", "/api/v1/chat/completions", "/api/v1/token_check"):
            response = stack.post(path, CHAT, headers=headers)
            answer = response.json()
            assert response.status_code == 401
            assert answer["error"]["code"] == "invalid_api_key"
            assert answer["detail"]["error"] == answer["error"]
    with pytest.raises(openai.AuthenticationError):
        stack.client.with_options(api_key="wrong").models.list()


def test_each_of_the_keys_opens(make_stack):
    stack = make_stack(api={"api_keys": ["key-1", "schlüssel-2"]})
    headers = {"Authorization": b"Bearer " + "schlüssel-2".encode()}
    assert stack.post("/v1/chat/completions", CHAT, headers=headers).status_code == 200
    assert stack.client.models.list().data[0].id == "echo"


def test_a_request_id_is_kept_or_made(stack):
    kept = stack.post("/v1/chat/completions", CHAT, headers={"X-Request-ID": "mine-7"})
    assert kept.headers["x-request-id"] == "mine-7"
    assert stack.engine.requests[0].request_id == "mine-7"
    made = stack.post("/v1/chat/completions", {**CHAT, "n": 0}, headers={"X-Request-ID": "a b"})
    assert made.headers["x-request-id"].startswith("req-")
