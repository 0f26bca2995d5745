"""Streams of changes to the page, and several of them as one. Knows no component."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

Changes = dict[Any, Any]
Growing = AsyncGenerator[Changes, None]


def streaming(plan: Callable[..., Coroutine[Any, Any, Growing]]) -> Callable[..., Growing]:
    """A handler for Gradio from one that says where its changes come from."""

    @functools.wraps(plan)
    async def handler(*args: Any) -> Growing:
        async with aclosing(await plan(*args)) as growing:
            async for changes in growing:
                yield changes

    return handler


async def merged(*streams: Growing) -> Growing:
    """The changes of several streams as they come; closing it closes them all."""
    news: asyncio.Queue[Changes | None] = asyncio.Queue()

    async def pump(stream: Growing) -> None:
        try:
            async with aclosing(stream) as growing:
                async for changes in growing:
                    news.put_nowait(changes)
        finally:
            news.put_nowait(None)

    pumps = [asyncio.create_task(pump(stream)) for stream in streams]
    try:
        for _ in streams:
            while (changes := await news.get()) is not None:
                yield changes
        await asyncio.gather(*pumps)
    finally:
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
