"""The engine inside this process, asked as the chain asks it: the roof over what serving can be."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from serve_load import Answer, Load

from fastchat.engine.loading import load_served_model
from fastchat.protocol.worker import GenerateParams
from fastchat.serve.worker.resolve import resolve


class Alone:
    """A loaded model; a context manager.

    Args:
        model: its folder.
        dtype: of its weights.
        tokens: of each answer.
    """

    def __init__(self, model: str, dtype: str, tokens: int) -> None:
        self._served = load_served_model(model, dtype=dtype)
        self._tokens = tokens

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run(self._served.engine.close())

    def load(self, count: int) -> Load:
        """So many requests at once."""
        return asyncio.run(self._load(count))

    def one_by_one(self, count: int) -> Load:
        """Requests of one token, each after the one before."""

        async def ask_all() -> list[Answer]:
            return [await self._ask(number, 1) for number in range(count)]

        began = time.perf_counter()
        return Load(asyncio.run(ask_all()), time.perf_counter() - began)

    async def _load(self, count: int) -> Load:
        began = time.perf_counter()
        asked = (self._ask(number, self._tokens) for number in range(count))
        return Load(list(await asyncio.gather(*asked)), time.perf_counter() - began)

    async def _ask(self, number: int, tokens: int) -> Answer:
        params = GenerateParams(
            messages=[{"role": "user", "content": f"{number:06d} tell me more of it"}],
            temperature=0,
            max_new_tokens=tokens,
            ignore_eos=True,
            echo=False,
        )
        answer, began = Answer(told=True, finish="length"), time.perf_counter()
        engine = self._served.engine
        async with aclosing(engine.generate(resolve(params, self._served).request)) as events:
            async for event in events:
                if event.text and not answer.text:
                    answer.first_s = time.perf_counter() - began
                answer.text += event.text
        answer.whole_s = time.perf_counter() - began
        return answer
