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
)
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.conversing import Answer, Exchange, News, understood
from fastchat.serve.openai.documented import answer as answers
from fastchat.serve.openai.events import EventWriter, usage_info
from fastchat.serve.openai.logprobs import chat_logprobs
from fastchat.serve.openai.request_ids import answer_id, request_id_of
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.openai.spending import spending
from fastchat.serve.openai.sse import STILL_WAITING, event_stream
from fastchat.serve.openai.tool_calls import CallNews
from fastchat.serve.streaming import while_connected


def chat_router(cluster: Cluster, settings: AppSettings) -> APIRouter:
    """The chat routes."""
    router = APIRouter()

    async def answer(body: ChatCompletionRequest, request: Request) -> Response:
        exchange = await understood(cluster, settings, body, request_id_of(request))
        name = answer_id("chatcmpl-", request)
        if body.stream:
            return await event_stream(request, _events(exchange, name, request))
        with spending(request, exchange.body.model, exchange.usages):
            answers = await while_connected(request.receive, exchange.whole())
        told = _whole(exchange, name, answers)
        return Response(told.model_dump_json(), media_type="application/json")

    documented = answers(ChatCompletionResponse, streamed=True)

    @router.post("/v1/chat/completions", responses=documented)
    async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
        return await answer(body, request)

    @router.post("/api/v1/chat/completions", responses=documented)
    async def api_chat_completions(body: APIChatCompletionRequest, request: Request) -> Response:
        return await answer(body, request)

    return router


def _whole(exchange: Exchange, name: str, answers: list[Answer]) -> ChatCompletionResponse:
    body = exchange.body
    return ChatCompletionResponse(
        id=name,
        model=body.model,
        choices=[
            ChatCompletionResponseChoice(
                index=index,
                message=ChatMessage(
                    role="assistant", content=answer.text, tool_calls=answer.calls or None
                ),
                logprobs=_chat_logprobs(answer, body),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ],
        usage=usage_info(exchange.usages.values()),
    )


async def _events(exchange: Exchange, name: str, request: Request) -> AsyncGenerator[bytes, None]:
    body = exchange.body
    write = EventWriter(name, "chat.completion.chunk", body)
    greeted: set[int] = set()
    with spending(request, exchange.body.model, exchange.usages):
        async with aclosing(exchange.news()) as found:
            async for news in found:
                choices = _choices(news, body)
                if news.index not in greeted:
                    greeted.add(news.index)
                    choices.insert(0, _choice(news.index, {"role": "assistant"}))
                # One write for all that is new: each costs as much as making the event does.
                yield b"".join(map(write.choice, choices)) or STILL_WAITING
    if write.tells_usage:
        yield write.usage(exchange.usages.values())


def _choices(news: News, body: ChatCompletionRequest) -> list[dict[str, Any]]:
    """What one piece of news is as events: text, then calls, then the end."""
    found = []
    logprobs = chat_logprobs(news.logprobs, body.top_logprobs or 0)
    if news.answer.text or logprobs:
        choice = _choice(news.index, {"content": news.answer.text})
        choice["logprobs"] = logprobs
        found.append(choice)
    found += [_choice(news.index, {"tool_calls": [_call(call)]}) for call in news.answer.calls]
    if news.finish_reason:
        found.append(_choice(news.index, {}, finish=news.finish_reason))
    return found


def _call(news: CallNews) -> dict[str, Any]:
    if news.name is None:
        return {"index": news.position, "function": {"arguments": news.arguments}}
    function = {"name": news.name, "arguments": news.arguments}
    return {"index": news.position, "id": news.call_id, "type": "function", "function": function}


def _chat_logprobs(answer: Answer, body: ChatCompletionRequest) -> ChatLogProbs | None:
    found = chat_logprobs(answer.logprobs, body.top_logprobs or 0)
    return None if found is None else ChatLogProbs.model_validate(found)


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
