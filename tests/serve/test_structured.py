"""Answers of a given form: every way in which clients ask for one reaches the engine."""

from __future__ import annotations

import json

import pydantic
import pytest

from fastchat.engine.echo import Script

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def grammar_of(stack, **extra):
    more = {"extra_body": extra} if "response_format" not in extra else extra
    stack.client.chat.completions.create(model="echo", messages=HELLO, **more)
    asked = stack.engine.requests[-1].sampling.grammar
    return asked.kind, asked.text


@pytest.mark.parametrize(
    ("extra", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema", {"type": "object"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
            "json_schema",
            SCHEMA,
        ),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"guided_choice": ["a", "b"]}, "choice", ["a", "b"]),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"choice": ["a"]}}, "choice", ["a"]),
        ({"structured_outputs": {"json_object": True}}, "json_schema", {"type": "object"}),
    ],
)
def test_json_and_choices(stack, extra, kind, text):
    found, told = grammar_of(stack, **extra)
    assert (found, json.loads(told)) == (kind, text)


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({"guided_regex": "a+"}, "regex"),
        ({"structured_outputs": {"regex": "a+"}}, "regex"),
        ({"guided_grammar": "a+"}, "ebnf"),
        ({"structured_outputs": {"grammar": "a+"}}, "ebnf"),
    ],
)
def test_expressions_and_grammars(stack, extra, kind):
    assert grammar_of(stack, **extra) == (kind, "a+")


def test_text_is_free(stack):
    stack.client.chat.completions.create(
        model="echo", messages=HELLO, response_format={"type": "text"}
    )
    assert stack.engine.requests[-1].sampling.grammar is None


def test_completions_take_a_form_too(stack):
    stack.client.completions.create(model="echo", prompt="a", extra_body={"guided_regex": "b"})
    assert stack.engine.requests[-1].sampling.grammar.text == "b"


class City(pydantic.BaseModel):
    name: str
    people: int


def test_the_sdk_parses_answers_into_classes(stack):
    stack.engine.script = Script(answer=lambda _: '{"name": "Rome", "people": 3}')
    answer = stack.client.chat.completions.parse(model="echo", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome", people=3)
    schema = json.loads(stack.engine.requests[-1].sampling.grammar.text)
    assert schema["required"] == ["name", "people"]


def test_further_sampling_fields_reach_the_engine(stack):
    extra = {
        "min_p": 0.2,
        "no_repeat_ngram_size": 3,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [7],
        "priority": -1,
        "cache_salt": "me",
        "skip_special_tokens": True,
    }
    stack.client.chat.completions.create(model="echo", messages=HELLO, extra_body=extra)
    request = stack.engine.requests[-1]
    sampling = request.sampling
    assert (sampling.min_p, sampling.no_repeat_ngram, sampling.min_new_tokens) == (0.2, 3, 2)
    assert (sampling.ignore_eos, sampling.stop_token_ids) == (True, (7,))
    assert (request.priority, request.cache_salt) == (-1, "me")
