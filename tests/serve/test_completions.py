"""Completions through the whole chain, asked with the real SDK."""

from __future__ import annotations

import pytest

from fastchat.engine.base import GenerationEvent, TokenLogprob
from fastchat.engine.echo import Script
from fastchat.serve.openai.logprobs import mean_logprob


def complete(stack, prompt="Hello", **more):
    return stack.client.completions.create(model="echo", prompt=prompt, **more)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("Hello", ["Hello"]),
        (["Hello", "Yuan"], ["Hello", "Yuan"]),
        ([72, 105], ["Hi"]),
        ([[72], [105, 33]], ["H", "i!"]),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_prompts_are_text_or_ids_one_or_several(stack, prompt, texts, stream):
    answer = complete(stack, prompt, stream=stream)
    found = [""] * len(texts)
    choices = (choice for chunk in answer for choice in chunk.choices) if stream else answer.choices
    for choice in choices:
        found[choice.index] += choice.text
    assert found == texts


def test_choices_are_ordered_by_prompt_and_then_by_answer(stack):
    answer = complete(stack, ["a", "b"], n=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3, "b"),
    ]


def test_sixteen_tokens_are_the_default_and_yield_to_the_model_and_the_context(make_stack):
    stack = make_stack(Script(answer=lambda _: "x" * 100))
    assert complete(stack).usage.completion_tokens == 16
    assert make_tokens(make_stack, defaults={"max_new_tokens": 20}) == 20
    assert make_tokens(make_stack, context_length=10) == 5


def make_tokens(make_stack, **model):
    stack = make_stack(Script(answer=lambda _: "x" * 100), **model)
    return complete(stack).usage.completion_tokens


def test_special_text_in_a_prompt_is_parsed(stack):
    complete(stack, "a<sep>")
    assert list(stack.engine.requests[0].prompt_ids) == [97, 257]


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_before_the_answer(stack, stream):
    answer = complete(stack, "ab", echo=True, logprobs=1, stream=stream)
    chunks = list(answer) if stream else [answer]
    text = "".join(chunk.choices[0].text for chunk in chunks)
    tokens, offsets, values, top = [], [], [], []
    for chunk in chunks:
        found = chunk.choices[0].logprobs
        if found is not None:
            tokens += found.tokens
            offsets += found.text_offset
            values += found.token_logprobs
            top += found.top_logprobs
    assert text == "abab"
    assert tokens == ["a", "b", "a", "b"]
    assert offsets == [0, 1, 2, 3]
    assert values == [None, -0.5, -0.5, -0.5]
    assert top == [None] + [{"<0>": -1.0, token: -0.5} for token in "bab"]


def test_streamed_equals_whole_and_ends_with_a_reason(stack):
    whole = complete(stack, "你好 a", max_tokens=5).choices[0]
    chunks = list(complete(stack, "你好 a", max_tokens=5, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text == "你"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == whole.finish_reason == "length"
    assert set(reasons[:-1]) == {None}


def test_usage_of_a_stream_covers_all_choices(stack):
    stream = complete(
        stack, ["a", "bc"], stream=True, stream_options={"include_usage": True}, max_tokens=9
    )
    *_, last = stream
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 5)


def test_best_of_makes_more_and_returns_the_likeliest(stack):
    answer = complete(stack, "ab", n=1, best_of=3)
    assert len(answer.choices) == 1
    assert answer.choices[0].logprobs is None
    assert len(stack.engine.requests) == 3
    assert answer.usage.completion_tokens == 9


def test_the_likeliest_answer_is_the_one_of_the_highest_mean():
    assert mean_logprob(_lists(-1.0, -1.0, -1.0)) > mean_logprob(_lists(-2.0))
    assert mean_logprob(_lists(None, -2.0)) == -2.0
    assert mean_logprob(None) == float("-inf")


def _lists(*values):
    size = len(values)
    return {
        "text_offset": [0] * size,
        "tokens": [""] * size,
        "token_logprobs": list(values),
        "top_logprobs": [None] * size,
    }


def test_the_end_token_is_no_part_of_the_log_probabilities(make_stack):
    events = [
        GenerationEvent(
            "ok",
            (1, 256),
            3,
            2,
            "stop",
            (TokenLogprob(1, "ok", -1.0), TokenLogprob(256, "<eod>", -2.0)),
        )
    ]
    found = complete(make_stack(Script(events=events)), logprobs=0).choices[0]
    assert found.text == "ok"
    assert found.logprobs.tokens == ["ok"]
