"""Every engine keeps the promises of `Engine`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastchat.engine.base import GenerationEvent, GenerationRequest, SamplingParams
from fastchat.engine.loading import load_served_model, read_conv_template
from fastchat.engine.served import ServedModel
from fastchat.errors import (
    ContextOverflowError,
    RequestError,
    SettingsError,
)
from fastchat.model.model_adapter import load_model

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=12, ignore_eos=True)


async def collect(
    served: ServedModel, prompt: str, sampling: SamplingParams
) -> list[GenerationEvent]:
    ids = served.codec.encode_ids(prompt)
    request = GenerationRequest(ids, sampling)
    return [event async for event in served.engine.generate(request)]


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events)


def ids_of(events: list[GenerationEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


async def test_greedy_is_what_generate_gives(served: ServedModel, tiny_folder: Path) -> None:
    model, tokenizer = load_model(str(tiny_folder), device="cpu")
    prompt = torch.tensor([tokenizer.encode_ids("你好 hello")])
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )[0, prompt.shape[1] :].tolist()
    events = await collect(served, "你好 hello", replace(GREEDY, ignore_eos=False))
    assert ids_of(events) == expected
    assert [event.finish_reason is None for event in events] == [True] * (len(events) - 1) + [False]
    assert events[-1].prompt_tokens == prompt.shape[1]
    assert [event.completion_tokens for event in events] == list(range(1, len(events) + 1))
    assert text_of(events) == tokenizer.decode(expected, skip_special_tokens=True)


async def test_a_crowd_answers_as_each_alone(served: ServedModel) -> None:
    prompts = ["one", "two words", "三个", "a longer prompt than the others"]
    sampled = replace(GREEDY, temperature=1.0, top_p=0.9, seed=7)
    for sampling in (GREEDY, sampled):
        alone = [ids_of(await collect(served, prompt, sampling)) for prompt in prompts]
        crowd = await asyncio.gather(*(collect(served, p, sampling) for p in prompts))
        assert [ids_of(events) for events in crowd] == alone


async def test_seeds_differ(served: ServedModel) -> None:
    hot = SamplingParams(temperature=2.0, max_new_tokens=12, ignore_eos=True)
    answers = [ids_of(await collect(served, "x", replace(hot, seed=seed))) for seed in (1, 2, 1)]
    assert answers[0] == answers[2] != answers[1]


async def test_stop_strings_and_stop_ids(served: ServedModel) -> None:
    events = await collect(served, "hello", GREEDY)
    text, ids = text_of(events), ids_of(events)
    assert events[-1].finish_reason == "length"
    stop = text[3:6]
    stopped = await collect(served, "hello", replace(GREEDY, stop=(stop,)))
    assert text_of(stopped) == text.partition(stop)[0]
    assert stopped[-1].finish_reason == "stop"
    by_id = await collect(served, "hello", replace(GREEDY, stop_token_ids=(ids[4],)))
    assert ids_of(by_id) == ids[: ids.index(ids[4]) + 1]
    assert by_id[-1].finish_reason == "stop"


async def test_logit_bias_and_end_token(served: ServedModel) -> None:
    end = served.stop_token_ids[0]
    forced = replace(GREEDY, logit_bias={end: 1e4}, ignore_eos=False)
    events = await collect(served, "hello", forced)
    assert ids_of(events) == [end]
    assert text_of(events) == ""
    assert events[-1].finish_reason == "stop"
    named = replace(GREEDY, logit_bias={end: 1e4}, stop=("<eod>",), ignore_eos=False)
    assert ids_of(await collect(served, "hello", named)) == [end]
    ignored = await collect(served, "hello", replace(forced, ignore_eos=True))
    assert ids_of(ignored) == [end] * 12


async def test_logprobs(served: ServedModel) -> None:
    asked = replace(GREEDY, logprobs=3, prompt_logprobs=2)
    events = await collect(served, "hello there", asked)
    for event in events:
        (entry,) = event.logprobs
        assert entry.token_id == event.token_ids[0] == entry.top[0][0]
        assert len(entry.top) == 3
        assert math.isclose(entry.logprob or 0.0, entry.top[0][2], abs_tol=1e-6)
    prompt = events[0].prompt_logprobs
    assert [entry.token_id for entry in prompt] == served.codec.encode_ids("hello there")
    assert prompt[0].logprob is None
    assert all(entry.logprob is not None and entry.logprob <= 0 for entry in prompt[1:])
    assert not any(event.prompt_logprobs for event in events[1:])


async def test_context_limits(served: ServedModel) -> None:
    limit = served.engine.context_length
    whole = [5] * (limit - 3)
    events = [
        event
        async for event in served.engine.generate(
            GenerationRequest(whole, replace(GREEDY, max_new_tokens=None))
        )
    ]
    assert len(events) == 3
    assert events[-1].finish_reason == "length"
    for prompt, tokens in (([5] * limit, None), (whole, 4)):
        request = GenerationRequest(prompt, replace(GREEDY, max_new_tokens=tokens))
        with pytest.raises(ContextOverflowError, match=str(limit)):
            await anext(served.engine.generate(request))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"presence_penalty": 3.0}, "presence_penalty"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"logit_bias": {10**6: 1.0}}, "logit_bias"),
    ],
)
async def test_values_out_of_range(
    served: ServedModel, values: dict[str, float], named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        await collect(served, "x", replace(GREEDY, **values))
    with pytest.raises(RequestError, match="empty"):
        await collect(served, "", GREEDY)


async def test_closing_the_iterator_frees_the_engine(served: ServedModel) -> None:
    request = GenerationRequest(served.codec.encode_ids("x"), replace(GREEDY, max_new_tokens=None))
    async with aclosing(served.engine.generate(request)) as events:
        await anext(events)
        assert served.engine.stats().running == 1
    await served.engine.embed([[5]])  # what was asked before has been done when this is
    assert served.engine.stats().running == 0
    task = asyncio.create_task(anext(served.engine.generate(request)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await collect(served, "x", GREEDY)) == 12


async def test_tokens_outside_the_vocabulary_are_refused(served: ServedModel) -> None:
    with pytest.raises(RequestError, match="token 1000000"):
        await anext(served.engine.generate(GenerationRequest([10**6], GREEDY)))
    with pytest.raises(RequestError, match="token -1"):
        await served.engine.embed([[-1]])


async def test_embeddings_are_unit_means(served: ServedModel) -> None:
    rows = [served.codec.encode_ids(text) for text in ("hello", "你好 world")]
    first, second = await served.engine.embed(rows)
    assert math.isclose(sum(value * value for value in first), 1.0, abs_tol=1e-5)
    (alone,) = await served.engine.embed([rows[1]])
    assert alone == pytest.approx(second, abs=1e-5)
    with pytest.raises(RequestError, match="empty"):
        await served.engine.embed([[]])
    with pytest.raises(ContextOverflowError):
        await served.engine.embed([[5] * 1000])


def test_conversation_templates_from_files(tmp_path: Path, tiny_folder: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "roles": ["Q", "A"], "sep_style": 1, "sep": "|"}')
    assert read_conv_template(str(path)).roles == ("Q", "A")
    served = load_served_model(str(tiny_folder), device="cpu", conv_template=str(path))
    assert served.chat.render([{"role": "user", "content": "hi"}]).text == "|Q: hi|A:"
    path.write_text('{"nome": 1}')
    with pytest.raises(SettingsError, match="nome"):
        read_conv_template(str(path))
    with pytest.raises(SettingsError, match="nothing"):
        read_conv_template("nothing")


def test_the_template_tells_the_models_own_end_tokens(served: ServedModel) -> None:
    assert served.conversation.name == "yuan2"
    assert served.conversation.stop_token_ids == list(served.stop_token_ids)


def test_events_are_an_async_iterator(served: ServedModel) -> None:
    assert isinstance(served.engine.generate(GenerationRequest([5])), AsyncIterator)
