"""An answer is the same alone, in a crowd, in chunks, after a prefix hit, set back, or drafted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.batching.scheduler import Limits
from fastchat.engine.continuous import ContinuousEngine
from fastchat.engine.loading import load_served_model
from fastchat.engine.lookup import Drafter
from fastchat.engine.settings import EngineSettings, Quantization
from fastchat.errors import DeadlineError, FastChatError, GenerationError, OverloadedError

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=20, ignore_eos=True)
SEEDED = replace(GREEDY, temperature=1.0, top_p=0.95, seed=11, repetition_penalty=1.2)
SAMPLING = {"greedy": GREEDY, "seeded": SEEDED}


@asynccontextmanager
async def engine_of(
    folder: Path,
    *,
    native: bool = True,
    cache_tokens: int = 2048,
    dtype: str = "float32",
    quantization: Quantization | None = None,
    **limits: int,
) -> AsyncIterator[ContinuousEngine]:
    drafting = limits.pop("drafting", 1)
    settings = EngineSettings(
        quantization=quantization,
        cache_tokens=cache_tokens,
        limits=Limits(**limits),
        native=native,
        drafting=bool(drafting),
        threads=1,
    )
    engine = load_served_model(str(folder), device="cpu", dtype=dtype, engine=settings).engine
    assert isinstance(engine, ContinuousEngine)
    try:
        yield engine
    finally:
        await engine.close()


def prompts(count: int) -> list[list[int]]:
    """Prompts of 1 to 60 tokens; some share beginnings, some repeat themselves."""
    rng = random.Random(5)
    shared = [rng.randrange(10, 1900) for _ in range(40)]
    found = []
    for number in range(count):
        own = [rng.randrange(10, 1900) for _ in range(rng.randrange(1, 20))]
        found.append([own, shared + own, own * 3][number % 3])
    return found


async def ids_of(engine: ContinuousEngine, request: GenerationRequest) -> list[int]:
    return [token async for event in engine.generate(request) for token in event.token_ids]


async def answers(
    engine: ContinuousEngine, asked: Sequence[list[int]], sampling: SamplingParams
) -> list[list[int]]:
    """Of all prompts at once."""
    requests = [GenerationRequest(prompt, sampling) for prompt in asked]
    return await asyncio.gather(*(ids_of(engine, request) for request in requests))


@pytest.fixture(scope="module")
def alone(tiny_folder: Path) -> dict[str, list[list[int]]]:
    """Each prompt's answer when nothing else was ever asked."""

    async def one_by_one(sampling: SamplingParams) -> list[list[int]]:
        found = []
        for prompt in prompts(15):
            async with engine_of(tiny_folder, drafting=0) as engine:
                found.append((await answers(engine, [prompt], sampling))[0])
        return found

    return {name: asyncio.run(one_by_one(sampling)) for name, sampling in SAMPLING.items()}


CROWDS: dict[str, dict[str, int]] = {
    "together": {},
    "in chunks of 1": {"step_tokens": 1},
    "in chunks of 3": {"step_tokens": 3},
    "in chunks of 17": {"step_tokens": 17},
    "two at a time": {"running": 2},
    "set back": {"cache_tokens": 176, "drafting": 0},
}


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("sampling", SAMPLING)
async def test_the_same_answer_however_it_is_batched(
    tiny_folder: Path,
    alone: dict[str, list[list[int]]],
    crowd: str,
    sampling: str,
) -> None:
    async with engine_of(tiny_folder, **CROWDS[crowd]) as engine:
        assert await answers(engine, prompts(15), SAMPLING[sampling]) == alone[sampling]
        # Once more, when beginnings are in the cache.
        assert await answers(engine, prompts(15), SAMPLING[sampling]) == alone[sampling]
        stats = engine.stats()
    assert (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0)
    assert stats.prefix_hit_tokens > 0
    assert stats.generated_tokens == 2 * 15 * 20
    if crowd == "set back":
        assert stats.preemptions > 0


class Foreseeing(Drafter):
    """Guesses an answer that is known, with a wrong token now and then."""

    def __init__(self, prompt: Sequence[int], answer: list[int]) -> None:
        super().__init__(prompt)
        self._rng = random.Random(len(prompt))
        self._left = answer

    def draft(self, limit: int) -> tuple[int, ...]:
        drafts = self._left[: self._rng.randrange(limit + 1)]
        return tuple(12 if self._rng.random() < 0.2 else token for token in drafts)

    def record(self, drafted: int, accepted: int, tokens: Sequence[int]) -> None:
        self._left = self._left[len(tokens) :]


@pytest.mark.parametrize("running", [1, 8])
@pytest.mark.parametrize("sampling", SAMPLING)
async def test_drafts_change_no_answer(
    tiny_folder: Path, alone: dict[str, list[list[int]]], running: int, sampling: str
) -> None:
    known = {tuple(p): a for p, a in zip(prompts(15), alone[sampling], strict=True)}
    async with engine_of(tiny_folder, running=running, draft_tokens=20) as engine:
        engine._drafter = lambda prompt: Foreseeing(prompt, known[tuple(prompt)])
        assert await answers(engine, prompts(15), SAMPLING[sampling]) == alone[sampling]
        assert await answers(engine, prompts(15), SAMPLING[sampling]) == alone[sampling]
        stats = engine.stats()
    assert stats.drafted_tokens > stats.accepted_tokens > 200
    assert (stats.running, stats.cache_usage) == (0, 0)


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
async def test_fewer_bits_are_batched_as_exactly(tiny_folder: Path, kind: Any) -> None:
    held = {"dtype": "bfloat16"} | ({} if kind == "bfloat16" else {"quantization": kind})
    async with engine_of(tiny_folder, running=1, drafting=0, **held) as engine:
        alone = await answers(engine, prompts(15), GREEDY)
    async with engine_of(tiny_folder, cache_tokens=176, step_tokens=13, **held) as engine:
        assert await answers(engine, prompts(15), GREEDY) == alone
        assert engine.stats().preemptions > 0


async def test_torch_operations_give_the_same_answers(
    tiny_folder: Path, alone: dict[str, list[list[int]]]
) -> None:
    async with engine_of(tiny_folder, native=False, step_tokens=30) as engine:
        assert await answers(engine, prompts(15), GREEDY) == alone["greedy"]


async def test_prompt_logprobs_are_the_same_in_chunks(tiny_folder: Path) -> None:
    asked = replace(GREEDY, max_new_tokens=2, logprobs=1, prompt_logprobs=2)
    found = []
    for chunk in (512, 7):
        async with engine_of(tiny_folder, step_tokens=chunk) as engine:
            request = GenerationRequest(prompts(2)[1], asked)
            found.append([event async for event in engine.generate(request)])
    assert found[0] == found[1]
    assert len(found[0][0].prompt_logprobs) == len(prompts(2)[1])


async def test_embeddings_of_a_batch_are_those_of_each_alone(tiny_folder: Path) -> None:
    async with engine_of(tiny_folder, step_tokens=16) as engine:
        asked = prompts(6)
        together = await engine.embed(asked)
        for row, vector in zip(asked, together, strict=True):
            (single,) = await engine.embed([row])
            assert single == pytest.approx(vector, abs=1e-6)


async def test_a_full_line_refuses_and_a_deadline_ends_the_wait(tiny_folder: Path) -> None:
    endless = replace(GREEDY, max_new_tokens=100)
    async with engine_of(tiny_folder, running=1, waiting=1) as engine:
        async with aclosing(engine.generate(GenerationRequest([5], endless))) as first:
            await anext(first)
            late = GenerationRequest([6], GREEDY, deadline_s=0.0)
            with pytest.raises(DeadlineError, match="0 s"):
                await ids_of(engine, late)
            waiting = asyncio.create_task(ids_of(engine, GenerationRequest([7], GREEDY)))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="1 requests wait"):
                await ids_of(engine, GenerationRequest([8], GREEDY))
        assert len(await waiting) == 20


async def test_priorities_are_admitted_first(tiny_folder: Path) -> None:
    async with engine_of(tiny_folder, running=1) as engine:
        order: list[int] = []

        async def ask(priority: int) -> None:
            await ids_of(engine, GenerationRequest([5], GREEDY, priority=priority))
            order.append(priority)

        async with aclosing(engine.generate(GenerationRequest([5], GREEDY))) as first:
            await anext(first)
            tasks = [asyncio.create_task(ask(priority)) for priority in (2, 0, 1)]
            await engine.embed([])
        await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


class Failing:
    """The network's operations, but a step that holds a certain token fails."""

    def __init__(self, network: Any, token: int, failure: Exception) -> None:
        self._forward = network.forward
        self.token = token
        self.failure = failure

    def __call__(self, step: Any, rows: Any = None) -> Any:
        if (step.token_ids == self.token).any():
            raise self.failure
        return self._forward(step, rows)


@pytest.mark.parametrize("failure", [RuntimeError("broken"), MemoryError("none left")])
async def test_a_failure_ends_the_request_at_fault_only(
    tiny_folder: Path, alone: dict[str, list[list[int]]], failure: Exception
) -> None:
    async with engine_of(tiny_folder) as engine:
        network = engine.core.network
        network.forward = Failing(network, 1901, failure)  # type: ignore[method-assign]
        bad = asyncio.create_task(ids_of(engine, GenerationRequest([7, 1901, 8], GREEDY)))
        assert await answers(engine, prompts(15), GREEDY) == alone["greedy"]
        with pytest.raises(GenerationError, match=str(failure)):
            await bad
        stats = engine.stats()
    assert (stats.running, stats.cache_usage) == (0, 0)


@pytest.mark.slow
async def test_five_hundred_requests_leave_nothing_behind(tiny_folder: Path) -> None:
    """Random cancels, refusals and failing steps."""
    rng = random.Random(3)
    ends: Counter[str] = Counter()

    async def ask(engine: ContinuousEngine, prompt: list[int]) -> None:
        wanted = rng.choice([30, 30, 30, 500])
        stop_after = rng.choice([100, rng.randrange(1, 40)])
        request = GenerationRequest(prompt, replace(GREEDY, max_new_tokens=wanted))
        try:
            async with aclosing(engine.generate(request)) as events:
                async for event in events:
                    if event.completion_tokens >= stop_after:
                        ends["left"] += 1
                        return
            ends["answered"] += 1
        except FastChatError as error:
            ends[type(error).__name__] += 1

    async with engine_of(
        tiny_folder, cache_tokens=512, running=8, waiting=100, step_tokens=40
    ) as engine:
        forward = engine.core.network.forward

        def failing(step: Any, rows: Any = None) -> Any:
            if rng.random() < 0.01:
                raise RuntimeError("on purpose")
            return forward(step, rows)

        engine.core.network.forward = failing  # type: ignore[method-assign]
        memory = []
        for _ in range(2):
            asked = [prompts(15)[number % 15] for number in range(250)]
            await asyncio.gather(*(ask(engine, prompt) for prompt in asked))
            memory.append(rss_bytes())
        engine.core.network.forward = forward  # type: ignore[method-assign]
        await engine.embed([[5]])
        stats = engine.stats()
    assert (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0)
    assert sum(ends.values()) == 500
    assert {"answered", "left", "ContextOverflowError", "OverloadedError"} <= set(ends)
    assert memory[1] < 1.05 * memory[0]


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_closed_engine_says_so(tiny_folder: Path) -> None:
    async with engine_of(tiny_folder) as engine:
        request = GenerationRequest([5], replace(GREEDY, max_new_tokens=100))
        running = asyncio.create_task(ids_of(engine, request))
        await asyncio.sleep(0)
    with pytest.raises(GenerationError, match="closed"):
        await running
    with pytest.raises(GenerationError, match="closed"):
        await ids_of(engine, request)
