"""POST /v1/responses: the stateless part of OpenAI's Responses API, text and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.responses import Response

from fastchat.errors import FastChatError, RequestError
from fastchat.protocol.openai_responses import ResponseObject, ResponsesRequest
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.conversing import Answer, Exchange, News, understood
from fastchat.serve.openai.documented import answer
from fastchat.serve.openai.errors import error_body
from fastchat.serve.openai.request_ids import answer_id, request_id_of
from fastchat.serve.openai.response_input import chat_request, renamed
from fastchat.serve.openai.response_output import ResponseWriter
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.openai.spending import spending
from fastchat.serve.openai.sse import STILL_WAITING, event_stream
from fastchat.serve.openai.streams import total_usage
from fastchat.serve.openai.tool_calls import CallNews
from fastchat.serve.streaming import while_connected
from fastchat.serve.wire_errors import invalid_body


def responses_router(cluster: Cluster, settings: AppSettings) -> APIRouter:
    """The Responses route."""
    router = APIRouter()

    @router.post("/v1/responses", responses=answer(ResponseObject, streamed=True))
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        try:
            chat = chat_request(body)
            exchange = await understood(cluster, settings, chat, request_id_of(request))
        except ValidationError as error:
            raise renamed(invalid_body(error.errors())) from error
        except RequestError as error:
            raise renamed(error) from error
        writer = ResponseWriter(answer_id("resp_", request), body)
        if body.stream:
            return await event_stream(request, _events(exchange, writer, request), end=b"")
        with spending(request, exchange.body.model, exchange.usages):
            (found,) = await while_connected(request.receive, exchange.whole())
        return JSONResponse(_whole(exchange, writer, found))

    return router


def _status(finish_reason: str | None) -> str:
    return "incomplete" if finish_reason == "length" else "completed"


def _whole(exchange: Exchange, writer: ResponseWriter, answer: Answer) -> dict[str, object]:
    """The object that the events would build, built by the same writer."""
    status = _status(answer.finish_reason)
    if answer.text is not None:
        for _ in writer.text(answer.text, answer.logprobs):
            pass
    for number, call in enumerate(answer.calls):
        function = call.function
        for _ in writer.call(CallNews(number, function.arguments, call.id, function.name)):
            pass
    for _ in writer.close(status):
        pass
    return writer.response(status, total_usage(exchange.usages.values()))


async def _events(
    exchange: Exchange, writer: ResponseWriter, request: Request
) -> AsyncGenerator[bytes, None]:
    begun = False
    try:
        with spending(request, exchange.body.model, exchange.usages):
            async with aclosing(exchange.news()) as found:
                async for news in found:
                    if not begun:
                        begun = True
                        for kind in ("created", "in_progress"):
                            told = writer.response("in_progress")
                            yield writer.event(f"response.{kind}", response=told)
                    for piece in _pieces(exchange, writer, news):
                        yield piece
    except FastChatError as error:
        if not begun:
            raise
        yield _failure(writer, error, request)


def _pieces(exchange: Exchange, writer: ResponseWriter, news: News) -> list[bytes]:
    pieces: list[bytes] = []
    if news.answer.text or news.logprobs:
        pieces += writer.text(news.answer.text, news.logprobs)
    for call in news.answer.calls:
        pieces += writer.call(call)
    if news.finish_reason is None:
        return pieces or [STILL_WAITING]
    if not writer.output:
        pieces += writer.text("", None)
    status = _status(news.finish_reason)
    pieces += writer.close(status)
    usage = total_usage(exchange.usages.values())
    pieces.append(writer.event(f"response.{status}", response=writer.response(status, usage)))
    return pieces


def _failure(writer: ResponseWriter, error: FastChatError, request: Request) -> bytes:
    told = error_body(error, request_id_of(request))["error"]
    response = writer.response("failed")
    response["error"] = {"code": "server_error", "message": told["message"]}
    return writer.event("response.failed", response=response)
