"""The engine inside this process, asked as the chain asks it: the roof over what serving can be."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from serve_load import Answer, Load

from fastchat.engine.loading import load_served_model
from fastchat.engine.served import ServedModel
from fastchat.protocol.worker import GenerateParams
from fastchat.serve.worker.resolve import resolve


def loads(model: str, dtype: str, count: int, tokens: int, repeats: int) -> list[Load]:
    """Several runs of so many requests at once; the first one, which warms up, is left out."""
    return asyncio.run(_loads(model, dtype, count, tokens, repeats))


async def _loads(model: str, dtype: str, count: int, tokens: int, repeats: int) -> list[Load]:
    served = load_served_model(model, dtype=dtype)
    try:
        runs = [await _load(served, count, tokens) for _ in range(repeats + 1)]
    finally:
        await served.engine.close()
    return runs[1:]


async def _load(served: ServedModel, count: int, tokens: int) -> Load:
    began = time.perf_counter()
    answers = await asyncio.gather(*(_ask(served, number, tokens) for number in range(count)))
    return Load(list(answers), time.perf_counter() - began)


async def _ask(served: ServedModel, number: int, tokens: int) -> Answer:
    params = GenerateParams(
        messages=[{"role": "user", "content": f"{number:06d} tell me more of it"}],
        temperature=0,
        max_new_tokens=tokens,
        ignore_eos=True,
        echo=False,
    )
    answer, began = Answer(told=True), time.perf_counter()
    async with aclosing(served.engine.generate(resolve(params, served).request)) as events:
        async for event in events:
            if event.text and not answer.text:
                answer.first_s = time.perf_counter() - began
            answer.text += event.text
    answer.whole_s = time.perf_counter() - began
    return answer
