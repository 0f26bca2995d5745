"""One chat request on its way: asked, answered, its calls found. Knows no answer's format.

`/v1/chat/completions` and `/v1/responses` are two ways to write down what comes out here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastchat.protocol.openai_api_protocol import ChatCompletionRequest, FinishReason
from fastchat.protocol.openai_tools import FunctionCall, ToolCall
from fastchat.protocol.worker import Chunk, ChunkLogprobs, Usage
from fastchat.serve.openai.checks import check_chat
from fastchat.serve.openai.cluster import Cluster, Route
from fastchat.serve.openai.params import Params, chat_messages, chat_params, variants
from fastchat.serve.openai.prefixes import prefixes_of_messages, prefixes_of_prompt
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.openai.streams import Delta, deltas, usage_of
from fastchat.serve.openai.tool_calls import AnswerNews, CallReader
from fastchat.serve.openai.tool_use import ToolUse, tool_use

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer; the text is None if it is nothing but calls."""

    text: str | None
    calls: list[ToolCall]
    logprobs: ChunkLogprobs | None
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class News:
    """What is new of one answer; `finish_reason` ends it."""

    index: int
    answer: AnswerNews
    logprobs: ChunkLogprobs | None
    finish_reason: FinishReason | None
    usage: Usage


@dataclass(slots=True)
class Exchange:
    """A request that has been understood and has a worker.

    Attributes:
        usages: token counts by answer, as far as they are known.
    """

    body: ChatCompletionRequest
    cluster: Cluster
    route: Route
    asked: list[Params]
    use: ToolUse
    usages: dict[int, Usage] = field(default_factory=dict)

    async def whole(self) -> list[Answer]:
        """All answers, made side by side."""
        chunks = await together([self.cluster.whole(self.route, each) for each in self.asked])
        self.usages |= {index: usage_of(chunk) for index, chunk in enumerate(chunks)}
        return [self._answer(chunk) for chunk in chunks]

    def _answer(self, chunk: Chunk) -> Answer:
        reader = CallReader(self.use.names)
        text, finish = chunk["text"], chunk.get("finish_reason")
        logprobs = chunk.get("logprobs")
        if not self.use.functions:
            return Answer(text, [], logprobs, finish)
        news = reader.feed(text, last=True)
        calls: list[ToolCall] = []
        for each in news.calls:
            if each.name is not None:
                called = FunctionCall(name=each.name, arguments="")
                calls.append(ToolCall(id=each.call_id or "", function=called))
            calls[each.position].function.arguments += each.arguments
        said = news.text.strip() if calls else news.text
        return Answer(
            None if calls and not said else said, calls, logprobs, self._finish(finish, reader)
        )

    def _finish(self, reason: FinishReason | None, reader: CallReader) -> FinishReason | None:
        called = reason == "stop" and reader.calls and not self.use.named
        return "tool_calls" if called else reason

    async def news(self) -> AsyncGenerator[News, None]:
        """What is new in any of the answers, as it comes."""
        streams = [self.cluster.stream(self.route, each) for each in self.asked]
        readers = [CallReader(self.use.names) for _ in streams]
        async with aclosing(deltas(streams)) as found:
            async for delta in found:
                self.usages[delta.index] = delta.usage
                yield self._news(delta, readers[delta.index])

    def _news(self, delta: Delta, reader: CallReader) -> News:
        if not self.use.functions:
            answer, finish = AnswerNews(delta.text), delta.finish_reason
            return News(delta.index, answer, delta.logprobs, finish, delta.usage)
        answer = reader.feed(delta.text, last=delta.finish_reason is not None)
        reason = self._finish(delta.finish_reason, reader)
        return News(delta.index, answer, delta.logprobs, reason, delta.usage)


async def understood(
    cluster: Cluster, settings: AppSettings, body: ChatCompletionRequest, request_id: str
) -> Exchange:
    """Checks a request and finds a worker for it.

    Raises:
        RequestError: a field that cannot be used; names it.
        WorkerUnavailableError: nobody is there to answer.
    """
    check_chat(body)
    use = tool_use(body)
    messages = chat_messages(body, use)
    salt = f"{body.model}\0{body.cache_salt or ''}"
    if messages is None:
        prefix = prefixes_of_prompt(str(body.messages), salt)
    else:
        prefix = prefixes_of_messages(messages, salt)
    route, template = await cluster.route(body.model, prefix)
    params = chat_params(body, template, use=use, messages=messages)
    params |= waiting_limits(settings)
    return Exchange(body, cluster, route, variants(params, body.n, request_id), use)


def waiting_limits(settings: AppSettings) -> dict[str, Any]:
    """How long a request may wait before it is begun."""
    if settings.queue_timeout_s is None:
        return {}
    return {"deadline_s": settings.queue_timeout_s}


async def together(works: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """The results of several works; the first failure cancels the others and is raised."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
