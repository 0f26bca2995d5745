"""POST /v1/chat/completions, and FastChat's own /api/v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from fastchat.protocol.api_protocol import APIChatCompletionRequest
from fastchat.protocol.openai_api_protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatLogProbs,
    ChatMessage,
    UsageInfo,
    random_id,
)
from fastchat.protocol.worker import Chunk, Usage
from fastchat.serve.openai.checks import check_chat
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.events import EventWriter
from fastchat.serve.openai.logprobs import chat_logprobs
from fastchat.serve.openai.params import chat_params, variants
from fastchat.serve.openai.request_ids import request_id_of
from fastchat.serve.openai.sse import STILL_WAITING, event_stream
from fastchat.serve.openai.streams import Delta, deltas, last_chunks, total_usage, usage_of
from fastchat.serve.streaming import while_connected

Streams = list[AsyncGenerator[Chunk, None]]


def chat_router(cluster: Cluster) -> APIRouter:
    """The chat routes."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        return await _answer(cluster, body, request)

    @router.post("/api/v1/chat/completions")
    async def api_chat_completions(body: APIChatCompletionRequest, request: Request) -> Response:
        return await _answer(cluster, body, request)

    return router


async def _answer(cluster: Cluster, body: ChatCompletionRequest, request: Request) -> Response:
    check_chat(body)
    worker = await cluster.worker_for(body.model)
    params = chat_params(body, await cluster.template(worker, body.model))
    streams = [
        worker.generate_stream(each) for each in variants(params, body.n, request_id_of(request))
    ]
    if body.stream:
        return await event_stream(request, _events(body, streams))
    answer = await while_connected(request.receive, _whole(body, streams))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _whole(body: ChatCompletionRequest, streams: Streams) -> ChatCompletionResponse:
    chunks = await last_chunks(streams)
    return ChatCompletionResponse(
        model=body.model,
        choices=[
            ChatCompletionResponseChoice(
                index=index,
                message=ChatMessage(role="assistant", content=chunk["text"]),
                logprobs=_chat_logprobs(chunk, body),
                finish_reason=chunk.get("finish_reason"),
            )
            for index, chunk in enumerate(chunks)
        ],
        usage=UsageInfo(**total_usage([usage_of(chunk) for chunk in chunks])),
    )


async def _events(body: ChatCompletionRequest, streams: Streams) -> AsyncGenerator[bytes, None]:
    write = EventWriter(random_id("chatcmpl-"), "chat.completion.chunk", body)
    greeted: set[int] = set()
    usages: dict[int, Usage] = {}
    async with aclosing(deltas(streams)) as news:
        async for delta in news:
            usages[delta.index] = delta.usage
            if delta.index not in greeted:
                greeted.add(delta.index)
                yield write.choice(_choice(delta.index, {"role": "assistant"}))
            if delta.text or delta.logprobs:
                yield write.choice(_new_text(delta, body))
            elif not delta.finish_reason:
                yield STILL_WAITING
            if delta.finish_reason:
                yield write.choice(_choice(delta.index, {}, finish=delta.finish_reason))
    if write.tells_usage:
        yield write.usage(total_usage(list(usages.values())))


def _chat_logprobs(chunk: Chunk, body: ChatCompletionRequest) -> ChatLogProbs | None:
    found = chat_logprobs(chunk.get("logprobs"), body.top_logprobs or 0)
    return None if found is None else ChatLogProbs.model_validate(found)


def _new_text(delta: Delta, body: ChatCompletionRequest) -> dict[str, Any]:
    choice = _choice(delta.index, {"content": delta.text})
    choice["logprobs"] = chat_logprobs(delta.logprobs, body.top_logprobs or 0)
    return choice


def _choice(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
