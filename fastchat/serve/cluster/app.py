"""The controller's HTTP face: who serves which model, and whom to ask next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from fastchat.protocol.worker import (
    DispatchQuestion,
    HeartBeat,
    HeartBeatAnswer,
    RegisterWorker,
    RemoveWorker,
    WorkerAddress,
    WorkerStatus,
)
from fastchat.serve.cluster.controller import Controller, ControllerSettings
from fastchat.serve.cluster.quick_routes import QuickAnswer, QuickRoutes
from fastchat.serve.metrics import add_metrics_route
from fastchat.serve.streaming import StreamBody
from fastchat.serve.tracing import telemetry
from fastchat.serve.wire_errors import install_wire_errors

__all__ = ["Controller", "ControllerSettings", "create_controller_app"]


def create_controller_app(
    settings: ControllerSettings | None = None, *, controller: Controller | None = None
) -> FastAPI:
    """A controller as an ASGI application; `controller` may bring its own clock and chance."""
    heart = controller or Controller(settings or ControllerSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        sweeping = asyncio.create_task(heart.sweep())
        yield
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await heart.close()

    app = FastAPI(
        title="FastChat controller",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry(),
    )
    app.state.controller = heart
    install_wire_errors(app)
    if not telemetry()["tracing"]:  # spans are made by the routes
        app.add_middleware(QuickRoutes, answers=_quick_answers(heart))
    add_metrics_route(app, heart.metrics)
    _add_worker_routes(app, heart)
    _add_question_routes(app, heart)
    return app


def _quick_answers(heart: Controller) -> dict[str, QuickAnswer]:
    def get_worker_address(body: bytes, _: str) -> WorkerAddress:
        return heart.worker_address(DispatchQuestion.model_validate_json(body))

    def receive_heart_beat(body: bytes, authorization: str) -> HeartBeatAnswer:
        heart.check_token(authorization)
        return heart.heart_beat(HeartBeat.model_validate_json(body))

    return {"/get_worker_address": get_worker_address, "/receive_heart_beat": receive_heart_beat}


def _add_worker_routes(app: FastAPI, heart: Controller) -> None:
    """What changes the table; asks for the secret."""

    async def check_token(request: Request) -> None:
        heart.check_token(request.headers.get("Authorization", ""))

    guarded = [Depends(check_token)]

    @app.post("/register_worker", dependencies=guarded)
    async def register_worker(message: RegisterWorker) -> None:
        await heart.register(message)

    @app.post("/remove_worker", dependencies=guarded)
    async def remove_worker(message: RemoveWorker) -> None:
        heart.remove(message.worker_name)

    @app.post("/receive_heart_beat", dependencies=guarded)
    async def receive_heart_beat(message: HeartBeat) -> HeartBeatAnswer:
        return heart.heart_beat(message)

    @app.post("/refresh_all_workers", dependencies=guarded)
    async def refresh_all_workers() -> None:
        await heart.refresh()


def _add_question_routes(app: FastAPI, heart: Controller) -> None:
    def models(*, multimodal: bool | None = None) -> dict[str, list[str]]:
        heart.expire()
        return {"models": heart.registry.models(multimodal=multimodal)}

    @app.post("/list_models")
    async def list_models() -> dict[str, list[str]]:
        return models()

    @app.post("/list_multimodal_models")
    async def list_multimodal_models() -> dict[str, list[str]]:
        return models(multimodal=True)

    @app.post("/list_language_models")
    async def list_language_models() -> dict[str, list[str]]:
        return models(multimodal=False)

    @app.post("/get_worker_address")
    async def get_worker_address(question: DispatchQuestion) -> WorkerAddress:
        return heart.worker_address(question)

    @app.post("/worker_generate_stream")
    async def worker_generate_stream(params: dict[str, Any]) -> Response:
        return StreamBody(heart.forward(params))

    @app.post("/worker_get_status")
    async def worker_get_status() -> WorkerStatus:
        heart.expire()
        return heart.registry.total()

    @app.get("/test_connection")
    async def test_connection() -> str:
        return "success"

    @app.get("/health")
    @app.get("/health/live")
    @app.get("/health/ready")
    async def health() -> dict[str, Any]:
        heart.expire()
        return {"status": "ok", "workers": len(heart.registry)}
