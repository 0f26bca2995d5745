"""Checkpoints with random weights, made once, and engines on them."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_machine import config_of

from fastchat.demo.random_checkpoint import write_random_checkpoint
from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.batching.scheduler import Limits
from fastchat.engine.continuous import ContinuousEngine
from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings

FOLDER = Path(os.environ.get("TMPDIR", "/tmp")) / "fastchat-benchmark"  # noqa: S108
WORDS = 77_000  # ids of plain text; what follows them in the vocabulary is rarely seen


def checkpoint(geometry: str) -> Path:
    """A checkpoint in bfloat16 with the published names; the published tokenizer if it is there."""
    folder = FOLDER / geometry
    if not folder.exists():  # it appears when it is whole
        tokenizer = os.environ.get("YUAN2_TOKENIZER")
        write_random_checkpoint(folder, config_of(geometry), tokenizer=tokenizer)
    return folder


@contextmanager
def engine(folder: Path, *, room: int, **options: Any) -> Iterator[ContinuousEngine]:
    """An engine with a cache for `room` tokens; further options are `EngineSettings`' and dtype."""
    options.setdefault("limits", Limits(running=64, step_tokens=512))
    dtype = options.pop("dtype", None)
    settings = EngineSettings(cache_tokens=room, **options)
    found = load_served_model(str(folder), device="cpu", dtype=dtype, engine=settings).engine
    assert isinstance(found, ContinuousEngine)
    try:
        yield found
    finally:
        asyncio.run(found.close())


@dataclass(frozen=True, slots=True)
class Burst:
    """Requests that started together.

    Attributes:
        tokens: generated, all requests together.
        wall_s, cpu_s: until the last was done; CPU seconds of all threads.
        first_s: time to the first token of each request.
        ids: what was generated.
    """

    tokens: int
    wall_s: float
    cpu_s: float
    first_s: list[float]
    ids: list[list[int]]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.wall_s


def prompts(count: int, size: int, seed: int) -> list[list[int]]:
    """Random text: no two begin alike."""
    rng = random.Random(seed)
    return [[rng.randrange(3, WORDS) for _ in range(size)] for _ in range(count)]


def burst(
    engine: ContinuousEngine,
    asked: Sequence[Sequence[int]],
    sampling: SamplingParams,
    *,
    adapters: Sequence[str] = (),
) -> Burst:
    """Asks all prompts at once, with the adapters in turn."""

    async def one(number: int, prompt: Sequence[int]) -> tuple[float, list[int]]:
        start, first, ids = time.perf_counter(), 0.0, []
        adapter = adapters[number % len(adapters)] if adapters else None
        request = GenerationRequest(prompt, sampling, adapter=adapter)
        async for event in engine.generate(request):
            first = first or time.perf_counter() - start
            ids += event.token_ids
        return first, ids

    async def everyone() -> list[tuple[float, list[int]]]:
        return await asyncio.gather(*(one(*pair) for pair in enumerate(asked)))

    wall, cpu = time.perf_counter(), time.process_time()
    found = asyncio.run(everyone())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ids = [ids for _, ids in found]
    return Burst(sum(map(len, ids)), wall, cpu, [first for first, _ in found], ids)


def greedy(new: int) -> SamplingParams:
    """Exactly so many tokens."""
    return SamplingParams(temperature=0.0, max_new_tokens=new, ignore_eos=True)
