"""POST /v1/embeddings and /v1/engines/{model}/embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from fastchat.errors import RequestError
from fastchat.protocol.openai_api_protocol import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    UsageInfo,
)
from fastchat.protocol.worker import EmbeddingsAnswer, EmbeddingsParams
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.documented import answer as answers
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.openai.spending import spend
from fastchat.serve.streaming import while_connected


def embeddings_router(cluster: Cluster, settings: AppSettings) -> APIRouter:
    """The embedding routes."""
    router = APIRouter()

    async def answer(body: EmbeddingsRequest, model: str | None, request: Request) -> Response:
        if not model:
            raise RequestError("No model is named.", param="model")
        rows = _rows(body)
        work = _embed(cluster, model, rows, body.encoding_format, settings.embedding_batch_size)
        found = await while_connected(request.receive, work)
        spend(request, found.usage.total_tokens)
        return Response(found.model_dump_json(exclude_none=True), media_type="application/json")

    documented = answers(EmbeddingsResponse)

    @router.post("/v1/embeddings", responses=documented)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        return await answer(body, body.model or body.engine, request)

    @router.post("/v1/engines/{model_name:path}/embeddings", responses=documented)
    async def engine_embeddings(
        model_name: str, body: EmbeddingsRequest, request: Request
    ) -> Response:
        return await answer(body, model_name, request)

    return router


def _rows(body: EmbeddingsRequest) -> list[Any]:
    """The inputs, each a text or token ids.

    Raises:
        RequestError: there is none, or one is empty.
    """
    given = body.input
    single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    rows: list[Any] = [given] if single else list(given)
    if not rows or not all(rows):
        raise RequestError("An input is empty; at least one token is needed.", param="input")
    return rows


async def _embedded(params: EmbeddingsParams, worker: WorkerClient) -> EmbeddingsAnswer:
    return await worker.embeddings(params)


async def _embed(
    cluster: Cluster, model: str, rows: list[Any], encoding: Any, batch: int
) -> EmbeddingsResponse:
    data: list[dict[str, Any]] = []
    read = 0
    field = "input" if isinstance(rows[0], str) else "token_ids"
    for start in range(0, len(rows), batch):
        part = {field: rows[start : start + batch]}
        params = EmbeddingsParams(model=model, encoding_format=encoding, **part)
        answer = await cluster.ask(model, partial(_embedded, params))
        read += answer.token_num
        data += [
            {"object": "embedding", "embedding": vector, "index": start + number}
            for number, vector in enumerate(answer.embedding)
        ]
    usage = UsageInfo(prompt_tokens=read, total_tokens=read, completion_tokens=None)
    return EmbeddingsResponse(data=data, model=model, usage=usage)
