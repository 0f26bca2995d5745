"""The API server as an ASGI application: routes, errors, keys, health."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse

from fastchat.errors import FastChatError
from fastchat.serve.openai.auth import api_key_check
from fastchat.serve.openai.chat import chat_router
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.completions import completions_router
from fastchat.serve.openai.embeddings import embeddings_router
from fastchat.serve.openai.errors import install_openai_errors
from fastchat.serve.openai.models import models_router
from fastchat.serve.openai.request_ids import RequestIds
from fastchat.serve.openai.settings import AppSettings, CorsSettings


def create_openai_app(settings: AppSettings, cors: CorsSettings | None = None) -> FastAPI:
    """An API server that reads its settings anew for every request."""
    cluster = Cluster(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await cluster.close()

    # The interactive pages would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(
        title="FastChat OpenAI-compatible API", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.cluster = cluster
    install_openai_errors(app)
    app.add_middleware(RequestIds)
    if cors is not None:
        add_cors(app, cors)
    guarded = [Depends(api_key_check(settings))]
    for router in (
        chat_router(cluster),
        completions_router(cluster),
        embeddings_router(cluster, settings),
        models_router(cluster),
    ):
        app.include_router(router, dependencies=guarded)

    @app.get("/health")
    async def health() -> JSONResponse:
        try:
            models = await cluster.models()
        except FastChatError as error:
            return _unhealthy(str(error))
        if not models:
            return _unhealthy("No model worker is registered at the controller.")
        return JSONResponse({"status": "ok", "models": models})

    return app


def add_cors(app: FastAPI, cors: CorsSettings) -> None:
    """Lets web pages of other origins call the application."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=cors.allowed_origins,
        allow_methods=cors.allowed_methods,
        allow_headers=cors.allowed_headers,
        allow_credentials=cors.allow_credentials,
    )


def _unhealthy(reason: str) -> JSONResponse:
    return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
