"""Several growing answers as one sequence of what is new. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypeVar

from fastchat.protocol.worker import Chunk, ChunkLogprobs, Usage

T = TypeVar("T")

_HALF_CHARACTER = "\ufffd"


async def merge(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """The items of all streams as they come, each with its stream's index.

    The first error of any stream is raised and ends them all; closing the generator
    closes every stream.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(len(streams))
    pumps = [
        asyncio.create_task(_pump(index, stream, queue)) for index, stream in enumerate(streams)
    ]
    try:
        running = len(pumps)
        while running:
            found = await queue.get()
            if found is None:
                running -= 1
            elif isinstance(found, Exception):
                raise found
            else:
                yield found
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    index: int,
    stream: AsyncGenerator[T, None],
    queue: asyncio.Queue[tuple[int, T] | Exception | None],
) -> None:
    try:
        async with aclosing(stream):
            async for item in stream:
                await queue.put((index, item))
    except Exception as error:  # noqa: BLE001 (raised again where it is read)
        await queue.put(error)
    else:
        await queue.put(None)


@dataclass(frozen=True, slots=True)
class Delta:
    """What one chunk adds to one answer."""

    index: int
    text: str
    logprobs: ChunkLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    usage: Usage


class Grower:
    """Turns the cumulative chunks of one answer into what each of them adds.

    A half character at the end of a chunk, which other workers may send, is held back
    until it is whole or the answer ends.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._told = 0
        self._told_tokens = 0

    def add(self, chunk: Chunk) -> Delta:
        """What the chunk adds to those before it."""
        finish_reason = chunk.get("finish_reason")
        if chunk.get("delta"):
            lists = chunk.get("logprobs")
            news = lists if lists and lists["tokens"] else None
            return Delta(self._index, chunk["text"], news, finish_reason, usage_of(chunk))
        text = chunk["text"] if finish_reason else chunk["text"].rstrip(_HALF_CHARACTER)
        new = text[self._told :]
        self._told = max(self._told, len(text))
        return Delta(self._index, new, self._new_logprobs(chunk), finish_reason, usage_of(chunk))

    def _new_logprobs(self, chunk: Chunk) -> ChunkLogprobs | None:
        lists = chunk.get("logprobs")
        if lists is None:
            return None
        start, self._told_tokens = self._told_tokens, len(lists["tokens"])
        if start == self._told_tokens:
            return None
        return ChunkLogprobs(
            text_offset=lists["text_offset"][start:],
            tokens=lists["tokens"][start:],
            token_logprobs=lists["token_logprobs"][start:],
            top_logprobs=lists["top_logprobs"][start:],
        )


def usage_of(chunk: Chunk) -> Usage:
    """A chunk's counts; zeros if it tells none."""
    return chunk.get("usage") or Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)


def total_usage(usages: Collection[Usage]) -> Usage:
    """The counts of several answers together."""
    return Usage(
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        completion_tokens=sum(usage["completion_tokens"] for usage in usages),
        total_tokens=sum(usage["total_tokens"] for usage in usages),
        cached_tokens=sum(usage.get("cached_tokens", 0) for usage in usages),
    )


async def deltas(
    streams: Sequence[AsyncGenerator[Chunk, None]],
) -> AsyncGenerator[Delta, None]:
    """What is new in any of several answers, as it comes."""
    growers = [Grower(index) for index in range(len(streams))]
    async with aclosing(merge(streams)) as chunks:
        async for index, chunk in chunks:
            yield growers[index].add(chunk)
