"""POST /tokenize and /detokenize, as vLLM has them; GET /version."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from fastchat import __version__
from fastchat.errors import RequestError
from fastchat.protocol.worker import (
    CountTokenParams,
    DetokenizeAnswer,
    DetokenizeParams,
    TokenizeAnswer,
)
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.messages import plain_messages


class TokenizeRequest(BaseModel):
    """A prompt, or messages with the chat template around them."""

    model_config = ConfigDict(extra="forbid")

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    return_token_strs: bool = False


class TokenizeResponse(BaseModel):
    """Token ids, and each token's text if it was asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(BaseModel):
    """Token ids."""

    model_config = ConfigDict(extra="forbid")

    model: str
    tokens: list[int]


class DetokenizeResponse(BaseModel):
    """The text of token ids, special tokens included."""

    prompt: str


def tokens_router(cluster: Cluster) -> APIRouter:
    """The routes that tell about tokens."""
    router = APIRouter()

    @router.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> TokenizeResponse:
        if (body.prompt is None) == (body.messages is None):
            raise RequestError("Either prompt or messages has to be sent.", param="prompt")
        messages = None if body.messages is None else plain_messages(body.messages)
        params = CountTokenParams(model=body.model, prompt=body.prompt or "", messages=messages)

        async def ask(worker: WorkerClient) -> TokenizeAnswer:
            return await worker.tokenize(params)

        answer = await cluster.ask(body.model, ask)
        return TokenizeResponse(
            count=len(answer.tokens),
            max_model_len=answer.context_length,
            tokens=answer.tokens,
            token_strs=answer.texts if body.return_token_strs else None,
        )

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> DetokenizeResponse:
        params = DetokenizeParams(model=body.model, tokens=body.tokens)

        async def ask(worker: WorkerClient) -> DetokenizeAnswer:
            return await worker.detokenize(params)

        return DetokenizeResponse(prompt=(await cluster.ask(body.model, ask)).text)

    @router.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    return router
