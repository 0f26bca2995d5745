"""The API server as an ASGI application: routes, errors, keys, health."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.responses import Response

from fastchat import __version__
from fastchat.errors import FastChatError, WorkerUnavailableError
from fastchat.serve.draining import Drain, DrainGate
from fastchat.serve.metrics import add_metrics_route
from fastchat.serve.openai.auth import api_key_check
from fastchat.serve.openai.bodies import BodyGuard
from fastchat.serve.openai.chat import chat_router
from fastchat.serve.openai.cluster import Cluster
from fastchat.serve.openai.completions import completions_router
from fastchat.serve.openai.documented import ERRORS, Documented
from fastchat.serve.openai.embeddings import embeddings_router
from fastchat.serve.openai.errors import error_response, install_openai_errors
from fastchat.serve.openai.metrics import ApiMetrics, Measured
from fastchat.serve.openai.models import models_router
from fastchat.serve.openai.request_ids import RequestIds
from fastchat.serve.openai.responses import responses_router
from fastchat.serve.openai.settings import AppSettings, CorsSettings
from fastchat.serve.openai.tokens import tokens_router
from fastchat.serve.tracing import telemetry


def create_openai_app(settings: AppSettings, cors: CorsSettings | None = None) -> FastAPI:
    """An API server that reads its settings anew for every request."""
    cluster = Cluster(settings)
    drain = Drain()
    metrics = ApiMetrics(lambda: drain.running)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await cluster.close()

    # The interactive pages would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(
        title="FastChat OpenAI-compatible API",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry(),
    )
    app.state.cluster = cluster
    install_openai_errors(app)
    # The last one added is the first one that a request meets.
    app.add_middleware(BodyGuard, settings=settings)
    app.add_middleware(DrainGate, drain=drain, is_work=_is_work, refusal=_leaving)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(RequestIds)
    if cors is not None:
        add_cors(app, cors)
    guarded = [Depends(api_key_check(settings))]
    for router in (
        chat_router(cluster, settings),
        completions_router(cluster, settings),
        responses_router(cluster, settings),
        embeddings_router(cluster, settings),
        models_router(cluster),
        tokens_router(cluster),
    ):
        app.include_router(router, dependencies=guarded, responses=ERRORS)
    add_metrics_route(app, metrics.registry)
    _add_health_routes(app, cluster, drain)

    async def finish() -> None:
        """Takes nothing new, and lets finish what runs."""
        drain.begin()
        await drain.idle(settings.drain_s)

    app.state.drain = finish
    return app


def _is_work(path: str) -> bool:
    return not path.startswith(("/health", "/metrics"))


def _leaving(_: str) -> Response:
    error = WorkerUnavailableError(
        "The server is about to end and takes no new requests.", hint="Try again."
    )
    return error_response(error, {})


def _add_health_routes(app: FastAPI, cluster: Cluster, drain: Drain) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    unavailable: Documented = {503: {"description": "Nobody is there to answer, and why"}}

    @app.get("/health", responses=unavailable)
    @app.get("/health/ready", responses=unavailable)
    async def health() -> JSONResponse:
        if drain.begun:
            return _unhealthy("The server is about to end.")
        try:
            models = await cluster.models()
        except FastChatError as error:
            return _unhealthy(str(error))
        if not models:
            return _unhealthy("No model worker is registered at the controller.")
        return JSONResponse({"status": "ok", "models": models})


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
