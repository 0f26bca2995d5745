"""Chat completions through the whole chain, asked with the real SDK."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.engine.echo import Script
from fastchat.protocol.openai_api_protocol import ChatCompletionStreamResponse

HELLO = [{"role": "user", "content": "你好, Yuan 😀!"}]


def ask(stack, messages=HELLO, **more):
    return stack.client.chat.completions.create(model="echo", messages=messages, **more)


def collect(stream, index=0):
    texts, reasons = [], []
    for chunk in stream:
        for choice in chunk.choices:
            if choice.index == index:
                texts.append(choice.delta.content or "")
                reasons.append(choice.finish_reason)
    return "".join(texts), reasons


def raw_events(stack, **body):
    response = stack.post(
        "/v1/chat/completions", {"model": "echo", "messages": HELLO, "stream": True, **body}
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_has_its_text_reason_and_counts(stack):
    answer = ask(stack)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "你好, Yuan 😀!")
    assert choice.finish_reason == "stop"
    text = len("你好, Yuan 😀!".encode())
    assert answer.usage.prompt_tokens == text + 1
    assert answer.usage.completion_tokens == text + 1
    assert answer.usage.total_tokens == 2 * text + 2
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "echo")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(min_size=1, max_size=30).filter(str.strip), limit=st.integers(1, 40))
def test_streamed_equals_whole(stack, text, limit):
    messages = [{"role": "user", "content": text}]
    whole = ask(stack, messages, max_tokens=limit).choices[0]
    streamed, reasons = collect(ask(stack, messages, max_tokens=limit, stream=True))
    assert streamed == whole.message.content
    assert reasons[-1] == whole.finish_reason
    assert set(reasons[:-1]) == {None}


def test_every_event_is_a_complete_chunk_of_one_answer(stack):
    events = raw_events(stack)
    for event in events:
        ChatCompletionStreamResponse.model_validate(event)
    heads = {(event["id"], event["object"], event["created"], event["model"]) for event in events}
    assert len(heads) == 1
    assert events[0]["object"] == "chat.completion.chunk"
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant"}
    assert all(list(choice["delta"]) == ["content"] for choice in choices[1:-1])
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "stop")
    assert all("usage" not in event for event in events)


def test_usage_is_told_in_a_last_event_if_asked_for(stack):
    *events, last = raw_events(stack, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"] == ask(stack).usage.model_dump(exclude_none=True)


def test_several_answers_grow_side_by_side(make_stack):
    stack = make_stack(Script(gate=asyncio.Barrier(3)))
    choices = [event["choices"][0] for event in raw_events(stack, n=3)]
    order = [choice["index"] for choice in choices]
    assert order != sorted(order)
    texts = [""] * 3
    for choice in choices:
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["你好, Yuan 😀!"] * 3
    assert [choice["delta"] for choice in choices if choice["finish_reason"]] == [{}] * 3


def test_several_answers_count_together_and_differ_by_seed(stack):
    answer = ask(stack, n=2, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1]
    one = ask(stack).usage
    assert answer.usage.completion_tokens == 2 * one.completion_tokens
    assert sorted(request.sampling.seed for request in stack.engine.requests[:2]) == [5, 6]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(stack, stream):
    answer = ask(stack, stop=["Yu", "zzz"], stream=stream)
    if stream:
        assert collect(answer)[0] == "你好, "
    else:
        assert answer.choices[0].message.content == "你好, "
        assert answer.choices[0].finish_reason == "stop"


def test_text_that_only_looks_like_a_stop_string_is_released(stack):
    text, reasons = collect(ask(stack, stop="Yuan?", stream=True))
    assert text == "你好, Yuan 😀!"
    assert reasons[-1] == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_token_limit_counts_under_both_names(stack, name):
    answer = ask(stack, **{name: 8})
    assert answer.choices[0].message.content == "你好, "
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8


def test_without_a_limit_the_rest_of_the_context_may_be_used(make_stack):
    stack = make_stack(Script(answer=lambda _: "x" * 500), context_length=100)
    answer = ask(stack, [{"role": "user", "content": "a" * 39}])
    assert answer.usage.total_tokens == 100
    assert answer.choices[0].finish_reason == "length"


def test_what_the_client_leaves_out_comes_from_the_model(make_stack):
    stack = make_stack(defaults={"temperature": 0.25, "top_k": 3, "seed": 9, "top_p": None})
    ask(stack)
    ask(stack, temperature=0.7, seed=1, extra_body={"top_k": -1})
    unset, asked = (request.sampling for request in stack.engine.requests)
    assert (unset.temperature, unset.top_k, unset.seed, unset.top_p) == (0.25, 3, 9, 1.0)
    assert (asked.temperature, asked.top_k, asked.seed) == (0.7, -1, 1)


def test_every_sampling_value_reaches_the_engine(stack):
    ask(
        stack,
        temperature=1.5,
        top_p=0.5,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"7": 2.5},
        extra_body={"top_k": 4, "repetition_penalty": 1.2},
    )
    sampling = stack.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.5, 0.5, 4)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert sampling.repetition_penalty == 1.2
    assert sampling.logit_bias == {7: 2.5}
    assert sampling.stop == ()


def test_a_system_message_a_dialogue_and_parts_are_rendered_by_the_worker(stack):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    assert ask(stack, messages).choices[0].message.content == "Be brief.\na\nb<n>c<n>d"


def test_typed_control_tokens_are_only_text(stack):
    ask(stack, [{"role": "user", "content": "a<sep>b<eod>"}])
    ids = stack.engine.requests[0].prompt_ids
    assert [token for token in ids if token > 255] == [257]
    assert ids[-1] == 257


def test_a_plain_text_in_place_of_messages_gets_no_template(stack):
    response = stack.post("/v1/chat/completions", {"model": "echo", "messages": "a<sep>b"})
    assert response.json()["choices"][0]["message"]["content"] == "ab"
    assert list(stack.engine.requests[0].prompt_ids) == [ord("a"), 257, ord("b")]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_cover_the_answer(stack, stream):
    if stream:
        chunks = list(ask(stack, logprobs=True, top_logprobs=2, stream=True))
        content = [
            token
            for chunk in chunks
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content
        ]
    else:
        content = ask(stack, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) == len("你好, Yuan 😀!".encode())
    plain = next(token for token in content if token.token == "Y")
    assert plain.bytes == [ord("Y")]
    assert plain.logprob == -0.5
    assert [top.token for top in plain.top_logprobs] == ["Y", "<0>"]
    assert content[0].bytes is None
    assert all(math.isfinite(token.logprob) for token in content)


def test_fastchats_own_route_answers_alike(stack):
    body = {"model": "echo", "messages": HELLO, "repetition_penalty": 1.1}
    response = stack.post("/api/v1/chat/completions", body)
    assert response.json()["choices"][0]["message"]["content"] == "你好, Yuan 😀!"
    assert stack.engine.requests[0].sampling.repetition_penalty == 1.1
