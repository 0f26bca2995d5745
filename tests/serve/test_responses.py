"""The Responses API through the whole chain, asked with the real SDK."""

from __future__ import annotations

import json

import openai
import pytest

from fastchat.engine.echo import Script
from tests.serve.test_tool_calls import CITY, NOW, WEATHER

TOOLS = [
    {"type": "function", "name": "weather", "parameters": CITY, "strict": True},
    {"type": "function", "name": "now", "parameters": None, "strict": False},
]


def ask(stack, question="你好, Yuan", **more):
    return stack.client.responses.create(model="echo", input=question, **more)


def prompt_of(stack):
    return bytes(t for t in stack.engine.requests[-1].prompt_ids if t < 256).decode()


def test_a_question_is_answered(stack):
    answer = ask(stack, instructions="Be brief.", metadata={"a": "b"})
    assert answer.output_text == "Be brief.\n你好, Yuan"
    assert (answer.status, answer.object, answer.model) == ("completed", "response", "echo")
    assert answer.metadata == {"a": "b"}
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert prompt_of(stack) == "Be brief.\n你好, Yuan"


def test_items_are_a_conversation(stack):
    items = [
        {"role": "user", "content": "a"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "b"}],
        },
        {"type": "function_call", "call_id": "1", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "noon"},
        {"role": "user", "content": [{"type": "input_text", "text": "c"}]},
    ]
    ask(stack, items)
    assert prompt_of(stack) == (f"a<n>b\n{NOW}<n><tool_response>\nnoon\n</tool_response><n>c")


def test_too_few_tokens_leave_it_incomplete(stack):
    answer = ask(stack, max_output_tokens=6)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "你好"


@pytest.mark.parametrize("answer", ["Hello.", f"{WEATHER}\n{NOW}", f"Wait.\n{NOW}", ""])
def test_the_events_build_the_whole_answer(stack, answer):
    stack.engine.script = Script(answer=lambda _: answer)
    whole = ask(stack, tools=TOOLS).model_dump()
    events = list(ask(stack, tools=TOOLS, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    streamed = events[-1].response.model_dump()

    def plain(output):
        return [
            {k: v for k, v in item.items() if k not in ("id", "call_id")}
            | {"content": [part["text"].strip() for part in item.get("content") or []]}
            for item in output
        ]

    assert plain(streamed["output"]) == plain(whole["output"])
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text.strip() == whole_text(whole)
    assert streamed["usage"] == whole["usage"]


def whole_text(answer):
    return "".join(
        part["text"] for item in answer["output"] for part in item.get("content") or []
    ).strip()


def test_the_sdk_follows_a_stream_of_calls(stack):
    stack.engine.script = Script(answer=lambda _: WEATHER)
    with stack.client.responses.stream(model="echo", input="?", tools=TOOLS) as stream:
        for _ in stream:
            pass
        (call,) = stream.get_final_response().output
    assert (call.type, call.name) == ("function_call", "weather")
    assert json.loads(call.arguments) == {"city": 'Ro}"me'}


def test_a_schema_reaches_the_engine(stack):
    form = {"type": "json_schema", "name": "c", "schema": CITY, "strict": True}
    ask(stack, text={"format": form})
    assert json.loads(stack.engine.requests[-1].sampling.grammar.text) == CITY


def test_log_probabilities_are_told_if_asked_for(stack):
    answer = ask(stack, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = answer.output[0].content[0].logprobs
    assert len(logprobs) == len("你好, Yuan".encode())
    assert len(logprobs[-1].top_logprobs) == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "x"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "x"}, "conversation"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"question": []}, "input"),
        ({"question": [{"type": "reasoning"}]}, "input[0].type"),
        ({"question": [{"role": "wizard", "content": "a"}]}, "input[0].role"),
    ],
)
def test_what_is_not_served_is_refused_by_name(stack, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(stack, **more)
    assert caught.value.param.startswith(param)


def test_a_failure_in_the_middle_ends_the_stream_with_a_failed_response(make_stack):
    stack = make_stack(Script(fail_after=4))
    events = list(ask(stack, "hello", stream=True))
    assert events[-1].type == "response.failed"
    assert "scripted failure" in events[-1].response.error.message
