"""The controller's HTTP face: who serves which model, and whom to ask next."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.responses import Response

from fastchat.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from fastchat.errors import (
    FastChatError,
    RequestError,
    SettingsError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from fastchat.protocol.worker import (
    HeartBeat,
    HeartBeatAnswer,
    ModelParams,
    RegisterWorker,
    WorkerStatus,
    encode_frame,
    error_chunk,
)
from fastchat.serve.cluster.dispatch import DISPATCH_METHODS
from fastchat.serve.cluster.registry import Registry
from fastchat.serve.cluster.transport import new_client
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.streaming import StreamBody
from fastchat.serve.wire_errors import install_wire_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a controller can be told.

    Attributes:
        dispatch_method: a name in `DISPATCH_METHODS`.
        expiration_s: how long a worker may be silent.
    """

    dispatch_method: str = "shortest_queue"
    expiration_s: float = CONTROLLER_HEART_BEAT_EXPIRATION

    def __post_init__(self) -> None:
        if self.dispatch_method not in DISPATCH_METHODS:
            raise SettingsError(
                f"The dispatch method is {self.dispatch_method!r}; known are"
                f" {', '.join(DISPATCH_METHODS)}.",
                param="--dispatch-method",
            )


class Controller:
    """The table of workers together with the clock, the chance and the wire."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        now: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self.registry = Registry(settings.expiration_s)
        self._choose = DISPATCH_METHODS[settings.dispatch_method]
        self._now = now
        self._chance = chance or random.Random()
        self._http = new_client()

    async def close(self) -> None:
        """Closes the connections to workers."""
        await self._http.aclose()

    def _worker(self, address: str) -> WorkerClient:
        return WorkerClient(self._http, address)

    def expire(self) -> None:
        """Forgets the workers that have fallen silent."""
        for address in self.registry.expire(now=self._now()):
            logger.warning("Worker %s has fallen silent and is removed", address)

    async def register(self, message: RegisterWorker) -> None:
        """Adds a worker; asks it for its state if the message does not tell.

        Raises:
            RequestError: the name is no URL, or nothing answers there.
        """
        _check_worker_url(message.worker_name)
        status = message.worker_status
        if status is None:
            try:
                status = await self._worker(message.worker_name).status()
            except (WorkerUnavailableError, WorkerTimeoutError) as error:
                raise RequestError(
                    f"The worker cannot be registered: {error}", param="worker_name"
                ) from error
        self.registry.register(
            message.worker_name,
            status,
            now=self._now(),
            check_heart_beat=message.check_heart_beat,
            multimodal=message.multimodal,
        )
        logger.info("Worker %s serves %s", message.worker_name, ", ".join(status.model_names))

    def heart_beat(self, message: HeartBeat) -> bool:
        """Notes a worker's sign of life. Returns whether it is known."""
        return self.registry.heart_beat(message.worker_name, message.queue_length, now=self._now())

    async def refresh(self) -> None:
        """Asks every worker for its state, all at once."""
        self.expire()
        await asyncio.gather(*map(self._refresh_one, self.registry.addresses()))

    async def _refresh_one(self, address: str) -> None:
        try:
            status = await self._worker(address).status()
        except FastChatError as error:
            logger.warning("Worker %s did not tell its state: %s", address, error)
            self.registry.missed(address)
        else:
            self.registry.update(address, status, now=self._now())

    def worker_address(self, model: str) -> str:
        """A worker for a model, which counts as one request busier; "" if there is none."""
        self.expire()
        entries = self.registry.serving(model)
        if not entries:
            return ""
        entry = self._choose(entries, self._chance)
        entry.queue_length += 1
        return entry.address

    async def forward(self, params: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """A worker's stream, chunk by chunk; failures become an error chunk."""
        model = str(params.get("model", ""))
        address = self.worker_address(model)
        if not address:
            error = WorkerUnavailableError(f"No worker serves the model {model!r}.")
            yield encode_frame(error_chunk(error))
            return
        try:
            async with aclosing(self._worker(address).frames(params)) as frames:
                async for frame in frames:
                    yield frame + b"\0"
        except FastChatError as error:
            if isinstance(error, WorkerUnavailableError):
                self.registry.missed(address)
            yield encode_frame(error_chunk(error))


def _check_worker_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise RequestError(
            f"worker_name is {url!r}; the worker's URL is needed, such as http://localhost:21002.",
            param="worker_name",
        )


def create_controller_app(
    settings: ControllerSettings | None = None, *, controller: Controller | None = None
) -> FastAPI:
    """A controller as an ASGI application; `controller` may bring its own clock and chance."""
    heart = controller or Controller(settings or ControllerSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await heart.close()

    app = FastAPI(title="FastChat controller", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.controller = heart
    install_wire_errors(app)

    @app.post("/register_worker")
    async def register_worker(message: RegisterWorker) -> None:
        await heart.register(message)

    @app.post("/refresh_all_workers")
    async def refresh_all_workers() -> None:
        await heart.refresh()

    @app.post("/list_models")
    async def list_models() -> dict[str, list[str]]:
        heart.expire()
        return {"models": heart.registry.models()}

    @app.post("/list_multimodal_models")
    async def list_multimodal_models() -> dict[str, list[str]]:
        heart.expire()
        return {"models": heart.registry.models(multimodal=True)}

    @app.post("/list_language_models")
    async def list_language_models() -> dict[str, list[str]]:
        heart.expire()
        return {"models": heart.registry.models(multimodal=False)}

    @app.post("/get_worker_address")
    async def get_worker_address(question: ModelParams) -> dict[str, str]:
        return {"address": heart.worker_address(question.model)}

    @app.post("/receive_heart_beat")
    async def receive_heart_beat(message: HeartBeat) -> HeartBeatAnswer:
        return HeartBeatAnswer(exist=heart.heart_beat(message))

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
    async def health() -> dict[str, Any]:
        heart.expire()
        return {"status": "ok", "workers": len(heart.registry)}

    return app
