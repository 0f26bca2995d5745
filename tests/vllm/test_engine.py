"""vLLM as an `Engine` keeps its promises: the tests of our engines, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh has it")

from fastchat.engine import loading
from fastchat.engine.base import GenerationRequest, Grammar, SamplingParams
from fastchat.engine.served import ServedModel
from fastchat.engine.settings import EngineSettings
from fastchat.errors import DeadlineError, RequestError
from fastchat.on_vllm.loading import load_served_model
from tests.engine.test_engines import (
    GREEDY,
    collect,
    ids_of,
    test_a_crowd_answers_as_each_alone,
    test_context_limits,
    test_events_are_an_async_iterator,
    test_greedy_is_what_generate_gives,
    test_logit_bias_and_end_token,
    test_logprobs,
    test_seeds_differ,
    test_stop_strings_and_stop_ids,
    test_the_template_tells_the_models_own_end_tokens,
    test_values_out_of_range,
)
from tests.vllm.conftest import FLAGS

__all__ = [
    "test_a_crowd_answers_as_each_alone",
    "test_context_limits",
    "test_events_are_an_async_iterator",
    "test_greedy_is_what_generate_gives",
    "test_logit_bias_and_end_token",
    "test_logprobs",
    "test_seeds_differ",
    "test_stop_strings_and_stop_ids",
    "test_the_template_tells_the_models_own_end_tokens",
    "test_values_out_of_range",
]

# vLLM's tasks run on the loop that it was first asked from.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(small_folder: Path, worker_process: object) -> AsyncIterator[ServedModel]:
    """The small model in vLLM; a worker of the same starts meanwhile."""
    served = load_served_model(str(small_folder), FLAGS)
    yield served
    await served.engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ours(small_folder: Path) -> AsyncIterator[ServedModel]:
    """The same model in our engine."""
    settings = EngineSettings(cache_tokens=4096)
    served = loading.load_served_model(str(small_folder), device="cpu", engine=settings)
    yield served
    await served.engine.close()


@pytest.fixture
def tiny_folder(small_folder: Path) -> Path:
    return small_folder


async def test_closing_the_iterator_frees_the_engine(served: ServedModel) -> None:
    request = GenerationRequest(served.codec.encode_ids("x"), replace(GREEDY, max_new_tokens=None))
    async with aclosing(served.engine.generate(request)) as events:
        await anext(events)
        assert served.engine.stats().running == 1
    assert served.engine.stats().running == 0
    assert len(await collect(served, "x", GREEDY)) == 12


async def test_a_least_length(served: ServedModel) -> None:
    end = served.stop_token_ids[0]
    wished = SamplingParams(
        temperature=0.0, max_new_tokens=9, min_new_tokens=5, logit_bias={end: 1e4}
    )
    assert len(await collect(served, "hello", wished)) == 6


@pytest.mark.parametrize(
    "wish",
    [
        {"repetition_penalty": 1.5},
        {"presence_penalty": 2.0, "frequency_penalty": 1.0},
        {"no_repeat_ngram": 2},
        {"logit_bias": {9: 5.0, 10: -5.0}},
        {"temperature": 1.0, "top_p": 0.0},
    ],
    ids=lambda wish: next(iter(wish)),
)
async def test_wishes_mean_what_they_mean_to_our_engine(
    served: ServedModel, ours: ServedModel, wish: dict[str, Any]
) -> None:
    wished = replace(GREEDY, max_new_tokens=40, **wish)
    events = await collect(served, "hello", wished)
    assert ids_of(events) == ids_of(await collect(ours, "hello", wished))


FORMS = [
    Grammar("choice", '["yes", "no", "maybe"]'),
    Grammar("regex", "[a-c]{3}-[0-9]{2}"),
    Grammar(
        "json_schema",
        '{"type": "object", "properties": {"a": {"enum": ["x", "yy"]}},'
        ' "required": ["a"], "additionalProperties": false}',
    ),
]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.kind)
async def test_answers_keep_their_form(
    served: ServedModel, ours: ServedModel, form: Grammar, temperature: float
) -> None:
    wished = SamplingParams(temperature=temperature, max_new_tokens=60, grammar=form, seed=1)
    events = await collect(served, "hello", wished)
    text = "".join(event.text for event in events)
    assert events[-1].finish_reason == "stop"
    if form.kind == "choice":
        assert text in json.loads(form.text)
    elif form.kind == "regex":
        assert re.fullmatch(form.text, text)
    else:
        assert json.loads(text)["a"] in ("x", "yy")
    if temperature == 0.0:
        assert ids_of(events) == ids_of(await collect(ours, "hello", wished))


async def test_a_beginning_is_shared_and_kept_apart_by_salt(served: ServedModel) -> None:
    prompt = [7 + place % 50 for place in range(200)]
    before = served.engine.stats().prefix_hit_tokens

    async def ask(salt: str) -> list[int]:
        request = GenerationRequest(prompt, GREEDY, cache_salt=salt)
        return ids_of([event async for event in served.engine.generate(request)])

    first = await ask("a")
    assert await ask("b") == first
    assert served.engine.stats().prefix_hit_tokens == before
    assert await ask("a") == first
    assert served.engine.stats().prefix_hit_tokens > before


async def test_a_request_that_is_not_begun_in_time_is_given_up(served: ServedModel) -> None:
    with pytest.raises(DeadlineError, match="0 s"):
        await anext(served.engine.generate(GenerationRequest([5], GREEDY, deadline_s=0.0)))
    assert served.engine.stats().waiting == 0


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (GenerationRequest([5], replace(GREEDY, grammar=Grammar("regex", "(["))), "regex"),
        (GenerationRequest([5], GREEDY, adapter="mine"), "mine"),
        (GenerationRequest([10**6], GREEDY), "token 1000000"),
    ],
)
async def test_what_vllm_lacks_is_refused(
    served: ServedModel, request_: GenerationRequest, named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        await anext(served.engine.generate(request_))
    with pytest.raises(RequestError, match="embeddings"):
        await served.engine.embed([[5]])
    with pytest.raises(RequestError, match="apply_lora"):
        await served.engine.load_adapter("mine", "folder")
