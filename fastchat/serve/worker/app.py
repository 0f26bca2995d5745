"""A worker's HTTP face: FastChat's wire format over a `Worker`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from fastchat.engine.served import ServedModel
from fastchat.errors import OverloadedError, WorkerUnavailableError
from fastchat.protocol.worker import (
    Chunk,
    CountTokenAnswer,
    CountTokenParams,
    DetokenizeAnswer,
    DetokenizeParams,
    EmbeddingsAnswer,
    EmbeddingsParams,
    GenerateParams,
    ModelDetails,
    ModelParams,
    TokenizeAnswer,
    WorkerStatus,
    encode_frame,
    error_chunk,
)
from fastchat.serve.cluster.connections import Connections
from fastchat.serve.cluster.controller_client import ControllerClient
from fastchat.serve.draining import DrainGate
from fastchat.serve.metrics import add_metrics_route
from fastchat.serve.streaming import StreamBody, while_connected
from fastchat.serve.tracing import telemetry
from fastchat.serve.wire_errors import install_wire_errors
from fastchat.serve.worker.face import WorkerFace
from fastchat.serve.worker.peer_styles import style_number
from fastchat.serve.worker.registrar import Registrar
from fastchat.serve.worker.settings import WorkerSettings
from fastchat.serve.worker.worker import Worker

__all__ = ["Worker", "WorkerSettings", "create_worker_app"]

_STREAM = "/worker_generate_stream"
_WORK = {_STREAM, "/worker_generate", "/worker_get_embeddings"}


def create_worker_app(
    served: ServedModel | Mapping[str, ServedModel], settings: WorkerSettings
) -> FastAPI:
    """A worker as an ASGI application. It closes the engines when it shuts down.

    Args:
        served: one model under all of the settings' names, or several by name.
        settings: how they are served.
    """
    if isinstance(served, ServedModel):
        served = dict.fromkeys(settings.model_names, served)
    return worker_app(Worker(served, settings))


def worker_app(worker: WorkerFace) -> FastAPI:
    """Any worker as an ASGI application, which closes it when it shuts down."""
    app = FastAPI(
        title="FastChat worker",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry(),
    )
    app.state.worker = worker
    install_wire_errors(app)
    app.add_middleware(DrainGate, drain=worker.drain, is_work=_WORK.__contains__, refusal=_leaving)
    add_metrics_route(app, worker.registry)
    _add_generation_routes(app, worker)
    _add_question_routes(app, worker)
    _add_health_routes(app, worker)
    return app


def _leaving(path: str) -> Response:
    error = WorkerUnavailableError(
        "The worker is about to end and takes no new requests.", hint="Try again."
    )
    return _refused(path, error)


def _refused(path: str, error: WorkerUnavailableError | OverloadedError) -> Response:
    """An error before there is a stream: a true status, in a frame where frames are read."""
    chunk = error_chunk(error)
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(round(error.retry_after_s))
    if path != _STREAM:
        return JSONResponse(chunk, error.status, headers)
    return Response(encode_frame(chunk), error.status, headers, "application/octet-stream")


def _add_generation_routes(app: FastAPI, worker: WorkerFace) -> None:
    @app.post(_STREAM)
    async def worker_generate_stream(params: GenerateParams) -> Response:
        try:
            worker.check_room()
        except OverloadedError as error:
            return _refused(_STREAM, error)
        return StreamBody(_frames(worker.generate(params)))

    @app.post("/worker_generate")
    async def worker_generate(params: GenerateParams, request: Request) -> Response:
        chunk = await while_connected(request.receive, worker.last_chunk(params))
        return JSONResponse(chunk)

    @app.post("/worker_get_embeddings")
    async def worker_get_embeddings(params: EmbeddingsParams, request: Request) -> Response:
        answer: EmbeddingsAnswer = await while_connected(request.receive, worker.embeddings(params))
        return Response(answer.model_dump_json(), media_type="application/json")


def _add_question_routes(app: FastAPI, worker: WorkerFace) -> None:
    @app.post("/worker_get_status")
    async def worker_get_status() -> WorkerStatus:
        return worker.status()

    # Not async: a long text is tokenised in a thread.
    @app.post("/count_token")
    def count_token(params: CountTokenParams) -> CountTokenAnswer:
        return worker.count_token(params)

    @app.post("/tokenize")
    def tokenize(params: CountTokenParams) -> TokenizeAnswer:
        return worker.tokenize(params)

    @app.post("/detokenize")
    def detokenize(params: DetokenizeParams) -> DetokenizeAnswer:
        return worker.detokenize(params)

    @app.post("/worker_get_conv_template")
    async def worker_get_conv_template(question: ModelParams, request: Request) -> dict[str, Any]:
        conversation = worker.conv_template(question.model)
        number = style_number(conversation.sep_style, request.headers.get("User-Agent", ""))
        return {"conv": {**dataclasses.asdict(conversation), "sep_style": number}}

    @app.post("/model_details")
    async def model_details(question: ModelParams) -> ModelDetails:
        return ModelDetails(context_length=worker.context_length(question.model))


def _add_health_routes(app: FastAPI, worker: WorkerFace) -> None:
    def state() -> dict[str, Any]:
        return {
            "status": "draining" if worker.drain.begun else "ok",
            "model_names": worker.status().model_names,
            "running": worker.slots.in_use,
            "waiting": worker.slots.waiting,
        }

    @app.get("/health")
    @app.get("/health/live")
    async def health() -> dict[str, Any]:
        return state()

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        return JSONResponse(state(), 503 if worker.drain.begun else 200)


async def _frames(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield encode_frame(chunk)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    worker: WorkerFace = app.state.worker
    settings = worker.settings
    await worker.open()
    async with Connections() as http:
        registrar, registering = None, None
        if settings.controller_address is not None:
            controller = ControllerClient(
                http, settings.controller_address, token=settings.controller_token
            )
            registrar = Registrar(controller, settings.worker_address, worker.status, settings.pace)
            registering = asyncio.create_task(registrar.run())

        async def drain() -> None:
            """Takes nothing new, tells the controller, and lets finish what runs."""
            worker.drain.begin()
            await _cancelled(registering)
            if registrar is not None:
                await registrar.leave()
            await worker.drain.idle(settings.drain_s)

        app.state.drain = drain
        yield
        await _cancelled(registering)
    await worker.close()


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
