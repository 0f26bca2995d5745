"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from fastchat.errors import RequestError
from fastchat.protocol.openai_api_protocol import (
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
    LogProbs,
)
from fastchat.protocol.worker import Chunk, Usage
from fastchat.serve.openai.checks import check_completion
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.conversing import together, waiting_limits
from fastchat.serve.openai.documented import answer
from fastchat.serve.openai.events import EventWriter, usage_info
from fastchat.serve.openai.logprobs import mean_logprob
from fastchat.serve.openai.params import Params, completion_params, variants
from fastchat.serve.openai.prefixes import prefixes_of_prompt
from fastchat.serve.openai.request_ids import answer_id, request_id_of
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.openai.spending import spending
from fastchat.serve.openai.sse import STILL_WAITING, event_stream
from fastchat.serve.openai.streams import Delta, deltas, usage_of
from fastchat.serve.streaming import while_connected


def completions_router(cluster: Cluster, settings: AppSettings) -> APIRouter:
    """The completion route."""
    router = APIRouter()

    @router.post("/v1/completions", responses=answer(CompletionResponse, streamed=True))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        check_completion(body)
        prompts = prompts_of(body)
        salt = f"{body.model}\0{body.cache_salt or ''}"
        route, template = await cluster.route(body.model, prefixes_of_prompt(prompts[0], salt))
        request_id = request_id_of(request)
        asked: list[Params] = []
        for number, prompt in enumerate(prompts):
            name = request_id if len(prompts) == 1 else f"{request_id}-{number}"
            params = completion_params(body, prompt, template) | waiting_limits(settings)
            asked += variants(_ranked(params, body), _answers_per_prompt(body), name)
        name = answer_id("cmpl-", request)
        usages: dict[int, Usage] = {}
        if body.stream:
            streams = [cluster.stream(route, params) for params in asked]
            return await event_stream(request, _events(body, name, streams, usages, request))
        with spending(request, body.model, usages):
            work = together([cluster.whole(route, params) for params in asked])
            chunks = await while_connected(request.receive, work)
            usages |= {index: usage_of(chunk) for index, chunk in enumerate(chunks)}
        told = _whole(body, name, chunks)
        return Response(told.model_dump_json(), media_type="application/json")

    return router


def prompts_of(body: CompletionRequest) -> Sequence[str | list[int]]:
    """The prompts of a request, one or several, each text or token ids.

    Raises:
        RequestError: there is none, or one is empty.
    """
    prompt = body.prompt
    single = isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], int))
    prompts: Any = [prompt] if single else prompt
    if not prompts or not all(prompts):
        raise RequestError("The prompt is empty; at least one token is needed.", param="prompt")
    found: Sequence[str | list[int]] = prompts
    return found


def _answers_per_prompt(body: CompletionRequest) -> int:
    return max(body.n, body.best_of or 1)


def _ranked(params: Params, body: CompletionRequest) -> Params:
    """Asks for the log-probabilities by which the best answers are found."""
    if params["logprobs"] is None and _answers_per_prompt(body) > body.n:
        return {**params, "logprobs": 0}
    return params


def _best(chunks: list[Chunk], body: CompletionRequest) -> list[Chunk]:
    """The `n` most likely of each prompt's answers."""
    made = _answers_per_prompt(body)
    if made == body.n:
        return chunks
    kept: list[Chunk] = []
    for start in range(0, len(chunks), made):
        group = sorted(
            chunks[start : start + made], key=lambda chunk: -mean_logprob(chunk.get("logprobs"))
        )
        kept += group[: body.n]
    return kept


def _whole(body: CompletionRequest, name: str, chunks: list[Chunk]) -> CompletionResponse:
    return CompletionResponse(
        id=name,
        model=body.model,
        choices=[
            CompletionResponseChoice(
                index=index,
                text=chunk["text"],
                logprobs=_logprobs(chunk, body),
                finish_reason=chunk.get("finish_reason"),
            )
            for index, chunk in enumerate(_best(chunks, body))
        ],
        usage=usage_info([usage_of(chunk) for chunk in chunks]),
    )


def _logprobs(chunk: Chunk, body: CompletionRequest) -> LogProbs | None:
    lists = chunk.get("logprobs")
    return None if lists is None or body.logprobs is None else LogProbs(**lists)


async def _events(
    body: CompletionRequest,
    name: str,
    streams: Sequence[AsyncGenerator[Chunk, None]],
    usages: dict[int, Usage],
    request: Request,
) -> AsyncGenerator[bytes, None]:
    write = EventWriter(name, "text_completion", body)
    with spending(request, body.model, usages):
        async with aclosing(deltas(streams)) as news:
            async for delta in news:
                usages[delta.index] = delta.usage
                if delta.text or delta.logprobs or delta.finish_reason:
                    yield write.choice(_choice(delta))
                else:
                    yield STILL_WAITING
    if write.tells_usage:
        yield write.usage(usages.values())


def _choice(delta: Delta) -> dict[str, Any]:
    return {
        "index": delta.index,
        "text": delta.text,
        "logprobs": delta.logprobs,
        "finish_reason": delta.finish_reason,
    }
