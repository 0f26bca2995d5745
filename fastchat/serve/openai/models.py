"""GET /v1/models, and POST /api/v1/token_check."""

from __future__ import annotations

from fastapi import APIRouter

from fastchat.errors import UnknownModelError
from fastchat.protocol.api_protocol import (
    APITokenCheckRequest,
    APITokenCheckRequestItem,
    APITokenCheckResponse,
    APITokenCheckResponseItem,
)
from fastchat.protocol.openai_api_protocol import ModelCard, ModelList, ModelPermission
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.openai.cluster import Cluster


def models_router(cluster: Cluster) -> APIRouter:
    """The routes that tell about models."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        return ModelList(data=[_card(name) for name in await cluster.models()])

    @router.get("/v1/models/{model_name:path}")
    async def one_model(model_name: str) -> ModelCard:
        names = await cluster.models()
        if model_name not in names:
            raise UnknownModelError(
                f"There is no model named {model_name!r}.",
                hint=f"Models that are served: {', '.join(names) or 'none'}.",
                param="model",
            )
        return _card(model_name)

    @router.post("/api/v1/token_check")
    async def token_check(body: APITokenCheckRequest) -> APITokenCheckResponse:
        return APITokenCheckResponse(prompts=[await _check(cluster, i) for i in body.prompts])

    return router


def _card(name: str) -> ModelCard:
    return ModelCard(id=name, root=name, permission=[ModelPermission()])


async def _check(cluster: Cluster, item: APITokenCheckRequestItem) -> APITokenCheckResponseItem:
    async def measured(worker: WorkerClient) -> tuple[int, int]:
        context = await worker.context_length(item.model)
        return await worker.count_token(item.model, item.prompt), context

    count, context = await cluster.ask(item.model, measured)
    return APITokenCheckResponseItem(
        fits=count + item.max_tokens <= context, tokenCount=count, contextLength=context
    )
