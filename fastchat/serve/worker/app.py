"""A worker's HTTP face: FastChat's wire format over one `ServedModel`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from fastchat.constants import WORKER_HEART_BEAT_INTERVAL, ErrorCode
from fastchat.engine.served import ServedModel
from fastchat.errors import FastChatError, GenerationError
from fastchat.protocol.worker import (
    Chunk,
    CountTokenAnswer,
    CountTokenParams,
    EmbeddingsAnswer,
    EmbeddingsParams,
    GenerateParams,
    ModelDetails,
    ModelParams,
    WorkerStatus,
    encode_frame,
    error_chunk,
)
from fastchat.serve.cluster.controller_client import ControllerClient
from fastchat.serve.cluster.transport import new_client
from fastchat.serve.streaming import StreamBody, while_connected
from fastchat.serve.wire_errors import install_wire_errors
from fastchat.serve.worker.chunks import Answer, chunks_of
from fastchat.serve.worker.embeddings import as_base64, embed
from fastchat.serve.worker.registrar import Pace, Registrar
from fastchat.serve.worker.resolve import Resolved, prompt_of, resolve
from fastchat.serve.worker.slots import Slots

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker can be told about serving, as opposed to about its model.

    Attributes:
        model_names: the names it serves its model under.
        worker_address: the URL under which others reach it.
        controller_address: None keeps it to itself.
        limit_worker_concurrency: requests generated at once; the rest wait in line.
        stream_interval: tokens between two chunks of a stream.
        keep_alive_s: a request in line is told that it still waits, this often.
        embed_in_truncate: cut long embedding inputs at the context length.
    """

    model_names: list[str]
    worker_address: str
    controller_address: str | None = None
    limit_worker_concurrency: int = 5
    stream_interval: int = 2
    keep_alive_s: float = 15.0
    embed_in_truncate: bool = False
    pace: Pace = field(default_factory=lambda: Pace(heart_beat_s=WORKER_HEART_BEAT_INTERVAL))


class Worker:
    """One served model with its slots."""

    def __init__(self, served: ServedModel, settings: WorkerSettings) -> None:
        self.served = served
        self.settings = settings
        self.slots = Slots(settings.limit_worker_concurrency)

    def status(self) -> WorkerStatus:
        """What is served, and the requests running and waiting."""
        return WorkerStatus(
            model_names=self.settings.model_names,
            speed=1,
            queue_length=self.slots.in_use + self.slots.waiting,
        )

    async def generate(self, params: GenerateParams) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer; a failure is told in a last chunk.

        Closing the generator aborts the request and frees its slot.
        """
        try:
            with _unexpected_reported(params.request_id):
                resolved = resolve(params, self.served)
                with self.slots.claim() as claim:
                    while not await claim.wait(self.settings.keep_alive_s):
                        yield self._new_answer(resolved).chunk()
                    async with aclosing(self._chunks(resolved)) as chunks:
                        async for chunk in chunks:
                            yield chunk
        except FastChatError as error:
            yield error_chunk(error)

    def _new_answer(self, resolved: Resolved) -> Answer:
        sampling = resolved.request.sampling
        return Answer(
            resolved.echo,
            logprobs=sampling.logprobs is not None,
            end_ids={*self.served.stop_token_ids, *sampling.stop_token_ids},
        )

    async def _chunks(self, resolved: Resolved) -> AsyncGenerator[Chunk, None]:
        stream = self.served.engine.generate(resolved.request)
        async with aclosing(stream) as events:
            answer = self._new_answer(resolved)
            interval = self.settings.stream_interval
            async with aclosing(chunks_of(events, answer, interval=interval)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def last_chunk(self, params: GenerateParams) -> Chunk:
        """The complete answer, or the failure."""
        last = error_chunk(GenerationError("The engine ended without an answer."))
        async with aclosing(self.generate(params)) as chunks:
            async for chunk in chunks:
                last = chunk
        return last

    async def embeddings(self, params: EmbeddingsParams) -> EmbeddingsAnswer:
        """Embeds texts or rows of token ids; takes a slot as generating does."""
        rows = params.token_ids
        if rows is None:
            encode = self.served.codec.encode_ids
            rows = [encode(text, parse_special=False) for text in params.input]
        with _unexpected_reported(), self.slots.claim() as claim:
            await claim.granted.wait()
            vectors, read = await embed(
                self.served.engine, rows, truncate=self.settings.embed_in_truncate
            )
        if params.encoding_format == "base64":
            return EmbeddingsAnswer(embedding=[as_base64(v) for v in vectors], token_num=read)
        return EmbeddingsAnswer(embedding=vectors, token_num=read)

    def count_token(self, params: CountTokenParams) -> CountTokenAnswer:
        """How many tokens a prompt takes, rendered first if it is messages."""
        question = GenerateParams(messages=params.messages, prompt=params.prompt)
        if params.messages is None and not params.prompt:
            return CountTokenAnswer(count=0)
        return CountTokenAnswer(count=len(prompt_of(question, self.served)[0]))

    def conv_template(self) -> dict[str, Any]:
        """The fields of the model's conversation template."""
        return {
            "conv": {
                **dataclasses.asdict(self.served.conversation),
                "sep_style": int(self.served.conversation.sep_style),
            }
        }


@contextmanager
def _unexpected_reported(request_id: str = "") -> Generator[None, None, None]:
    """Turns whatever an engine raises into an error of this request only."""
    try:
        yield
    except FastChatError:
        raise
    except Exception as error:
        logger.exception("Request %s failed", request_id)
        kind = type(error).__name__
        failure = GenerationError(f"Generation failed: {kind}: {error}")
        if kind == "OutOfMemoryError":  # torch's, which is not imported here
            failure.code = ErrorCode.CUDA_OUT_OF_MEMORY
        raise failure from error


def create_worker_app(served: ServedModel, settings: WorkerSettings) -> FastAPI:
    """A worker as an ASGI application. It closes the engine when it shuts down."""
    worker = Worker(served, settings)
    app = FastAPI(title="FastChat worker", lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.state.worker = worker
    install_wire_errors(app)

    @app.post("/worker_generate_stream")
    async def worker_generate_stream(params: GenerateParams) -> Response:
        return StreamBody(_frames(worker.generate(params)))

    @app.post("/worker_generate")
    async def worker_generate(params: GenerateParams, request: Request) -> Response:
        chunk = await while_connected(request.receive, worker.last_chunk(params))
        return JSONResponse(chunk)

    @app.post("/worker_get_embeddings")
    async def worker_get_embeddings(params: EmbeddingsParams, request: Request) -> Response:
        answer = await while_connected(request.receive, worker.embeddings(params))
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/worker_get_status")
    async def worker_get_status() -> WorkerStatus:
        return worker.status()

    @app.post("/count_token")
    async def count_token(params: CountTokenParams) -> CountTokenAnswer:
        return worker.count_token(params)

    @app.post("/worker_get_conv_template")
    async def worker_get_conv_template(_: ModelParams) -> dict[str, Any]:
        return worker.conv_template()

    @app.post("/model_details")
    async def model_details(_: ModelParams) -> ModelDetails:
        return ModelDetails(context_length=worker.served.engine.context_length)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        slots = worker.slots
        return {
            "status": "ok",
            "model_names": settings.model_names,
            "running": slots.in_use,
            "waiting": slots.waiting,
        }

    return app


async def _frames(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield encode_frame(chunk)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    worker: Worker = app.state.worker
    settings = worker.settings
    async with new_client() as http:
        registering: asyncio.Task[None] | None = None
        if settings.controller_address is not None:
            registrar = Registrar(
                ControllerClient(http, settings.controller_address),
                settings.worker_address,
                worker.status,
                settings.pace,
            )
            registering = asyncio.create_task(registrar.run())
        yield
        if registering is not None:
            registering.cancel()
            with suppress(asyncio.CancelledError):
                await registering
    await worker.served.engine.close()
