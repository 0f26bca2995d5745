"""From an engine's events to the chunks of FastChat's stream. Pure.

Events hold what is new, chunks hold everything so far.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import Literal

from fastchat.engine.base import GenerationEvent, TokenLogprob
from fastchat.protocol.worker import Chunk, ChunkLogprobs, Usage


class Answer:
    """An answer as it grows.

    Args:
        echo: text that stands before the answer.
        logprobs: whether chunks tell log-probabilities.
        end_ids: tokens that end an answer and are no part of it.
        deltas: chunks tell what is new, in place of everything so far.
    """

    def __init__(
        self, echo: str, *, logprobs: bool, end_ids: Collection[int], deltas: bool = False
    ) -> None:
        self._text = echo
        self._deltas = deltas
        self._end_ids = end_ids
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._cached_tokens = 0
        self._offset = 0
        self._told = 0 if deltas else len(echo)
        self._logprobs = _no_logprobs() if logprobs else None

    @property
    def has_news(self) -> bool:
        """Whether there is text that no chunk has told yet."""
        return len(self._text) > self._told

    @property
    def deltas(self) -> bool:
        """Whether chunks tell only what is new."""
        return self._deltas

    def add(self, event: GenerationEvent) -> None:
        """Takes in what an event tells."""
        self._text += event.text
        self._prompt_tokens = event.prompt_tokens
        self._completion_tokens = event.completion_tokens
        self._cached_tokens = event.cached_tokens
        if self._logprobs is not None:
            for entry in (*event.prompt_logprobs, *self._inside(event)):
                _append(self._logprobs, entry, self._offset)
                self._offset += len(entry.text)

    def chunk(self, finish_reason: Literal["stop", "length"] | None = None) -> Chunk:
        """Everything so far, or what is new since the last chunk."""
        text, logprobs = self._text, self._logprobs
        self._told = len(text)
        if self._deltas:
            self._text, self._told = "", 0
            self._logprobs = None if logprobs is None else _no_logprobs()
        usage = Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            total_tokens=self._prompt_tokens + self._completion_tokens,
        )
        if self._cached_tokens:
            usage["cached_tokens"] = self._cached_tokens
        chunk = Chunk(
            text=text,
            error_code=0,
            usage=usage,
            finish_reason=finish_reason,
            logprobs=logprobs,
        )
        if self._deltas:
            chunk["delta"] = True
        return chunk

    def _inside(self, event: GenerationEvent) -> tuple[TokenLogprob, ...]:
        entries = event.logprobs
        if event.finish_reason == "stop" and entries and entries[-1].token_id in self._end_ids:
            return entries[:-1]
        return entries


def _no_logprobs() -> ChunkLogprobs:
    return ChunkLogprobs(text_offset=[], tokens=[], token_logprobs=[], top_logprobs=[])


def _append(lists: ChunkLogprobs, entry: TokenLogprob, offset: int) -> None:
    lists["text_offset"].append(offset)
    lists["tokens"].append(entry.text)
    lists["token_logprobs"].append(entry.logprob)
    if entry.logprob is None:
        lists["top_logprobs"].append(None)
        return
    top: dict[str, float] = {}
    for _, text, logprob in (*entry.top, (entry.token_id, entry.text, entry.logprob)):
        top.setdefault(text, logprob)
    lists["top_logprobs"].append(top)


async def chunks_of(
    events: AsyncIterator[GenerationEvent],
    answer: Answer,
    *,
    interval: int,
    gap_s: Callable[[], float] = lambda: 0.0,
    now: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Chunk, None]:
    """Chunks whenever there is new text and `interval` tokens have passed; the first at once.

    Args:
        events: what the engine tells.
        answer: takes them in.
        interval: tokens between two chunks.
        gap_s: seconds that have to pass as well, as things stand.
        now: the clock.

    The last chunk holds the finish reason and, where everything is told each time, nothing
    else that is new.
    """
    told_tokens, told_at = -interval, float("-inf")
    async for event in events:
        answer.add(event)
        alone = event.finish_reason is not None and not answer.deltas
        enough = event.completion_tokens - told_tokens >= interval
        due = alone or (enough and now() - told_at >= gap_s())
        if answer.has_news and due and not (event.finish_reason and answer.deltas):
            told_tokens, told_at = event.completion_tokens, now()
            yield answer.chunk()
        if event.finish_reason is not None:
            yield answer.chunk(event.finish_reason)
