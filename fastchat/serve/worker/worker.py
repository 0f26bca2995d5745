"""A worker: served models, the places in front of them, and the way from request to chunks.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial

from fastchat.constants import ErrorCode
from fastchat.conversation import Conversation
from fastchat.engine.base import EngineStats, GenerationEvent
from fastchat.engine.served import ServedModel
from fastchat.errors import (
    DeadlineError,
    FastChatError,
    GenerationError,
    OverloadedError,
    RequestError,
)
from fastchat.protocol.worker import (
    Chunk,
    CountTokenAnswer,
    CountTokenParams,
    DetokenizeAnswer,
    DetokenizeParams,
    EmbeddingsAnswer,
    EmbeddingsParams,
    GenerateParams,
    TokenizeAnswer,
    error_chunk,
)
from fastchat.serve.worker.chunks import Answer, chunks_of
from fastchat.serve.worker.embeddings import as_base64, embed
from fastchat.serve.worker.face import WorkerFace
from fastchat.serve.worker.metrics import RequestWatch, WorkerMetrics
from fastchat.serve.worker.resolve import Resolved, prompt_of, resolve, text_size
from fastchat.serve.worker.settings import WorkerSettings
from fastchat.serve.worker.slots import Claim

logger = logging.getLogger(__name__)

_LONG_TEXT = 20_000  # characters
_FEW = 4
_GAP_S = 0.0015
_LONGEST_GAP_S = 0.25


class Worker(WorkerFace):
    """Served models with the places in front of them.

    Args:
        models: by the names that they are served under. Where all names mean one model, a
            request may come under any name, as FastChat's workers have it.
    """

    def __init__(self, models: Mapping[str, ServedModel], settings: WorkerSettings) -> None:
        super().__init__(settings, [*settings.model_names, *settings.adapters])
        self._models = dict(models)
        self._first = next(iter(models.values()))
        one = all(served is self._first for served in models.values())
        self._only = one and not settings.adapters
        self._ends: deque[float] = deque(maxlen=32)
        self.metrics = WorkerMetrics(self._stats, lambda: self.slots.waiting)
        self.registry = self.metrics.registry

    @property
    def models(self) -> list[ServedModel]:
        """The served models, each once."""
        return list({id(served): served for served in self._models.values()}.values())

    def served(self, name: str) -> ServedModel:
        """The model of a name.

        Raises:
            UnknownModelError: several models are served, and none under this name.
        """
        adapter = self.settings.adapters.get(name)
        found = self._models.get(name if adapter is None else adapter.base)
        if found is not None:
            return found
        if self._only:
            return self._first
        raise self.unknown(name)

    def context_length(self, model: str) -> int:
        """See `WorkerFace.context_length`."""
        return self.served(model).engine.context_length

    def _label(self, model: str) -> str:
        """The name under which a request is counted; clients may send any."""
        known = model in self._models or model in self.settings.adapters
        return model if known else ""

    def _stats(self) -> dict[str, EngineStats]:
        names: dict[int, str] = {}
        for name, served in self._models.items():
            names.setdefault(id(served), name)
        return {names[id(served)]: served.engine.stats() for served in self.models}

    @property
    def waiting(self) -> int:
        """Requests in line, for a place or inside an engine."""
        return self.slots.waiting + sum(stats.waiting for stats in self._stats().values())

    def check_room(self) -> None:
        """See `WorkerFace.check_room`."""
        waiting = self.waiting
        if waiting < max(1, self.settings.queue_limit):  # who may not wait may still run
            return
        error = OverloadedError(
            f"{waiting} requests are in line already, which is the limit.",
            hint="Try again later, or start another worker.",
        )
        error.retry_after_s = self._time_to_clear(waiting)
        raise error

    def _time_to_clear(self, waiting: int) -> float:
        """Seconds until the line is gone at the pace of late, from 1 to 60."""
        if len(self._ends) < 2:
            return 1.0
        pace_s = (time.monotonic() - self._ends[0]) / len(self._ends)
        return min(60.0, max(1.0, waiting * pace_s))

    async def generate(self, params: GenerateParams) -> AsyncGenerator[Chunk, None]:
        """See `WorkerFace.generate`."""
        watch = self.metrics.watch(self._label(params.model))
        try:
            with _unexpected_reported(params.request_id):
                self.check_room()
                served = self.served(params.model)
                adapter = params.model if params.model in self.settings.adapters else None
                resolved = await _resolved(params, served, adapter)
                with self.slots.claim() as claim:
                    async for _ in self._in_line(claim, params):
                        yield self._new_answer(resolved, params, served).chunk()
                    watch.admitted()
                    async with aclosing(self._chunks(resolved, params, served, watch)) as chunks:
                        async for chunk in chunks:
                            yield chunk
        except FastChatError as error:
            watch.failed(error.code)
            yield error_chunk(error)
        finally:
            self._ends.append(time.monotonic())

    async def _in_line(self, claim: Claim, params: GenerateParams) -> AsyncGenerator[None, None]:
        """Waits for the place; yields as often as the request has to be kept alive."""
        arrived, keep_alive_s = time.monotonic(), self.settings.keep_alive_s
        while True:
            wait_s = keep_alive_s
            if params.deadline_s is not None:
                left_s = arrived + params.deadline_s - time.monotonic()
                wait_s = max(0.0, min(wait_s, left_s))
            if await claim.wait(wait_s):
                return
            if params.deadline_s is not None and time.monotonic() - arrived >= params.deadline_s:
                raise DeadlineError(
                    f"The request waited for {params.deadline_s:g} s, which is its limit, without"
                    " being begun.",
                    hint="Try again later, or give it more time.",
                )
            yield

    def _new_answer(
        self, resolved: Resolved, params: GenerateParams, served: ServedModel
    ) -> Answer:
        sampling = resolved.request.sampling
        return Answer(
            resolved.echo,
            logprobs=sampling.logprobs is not None,
            end_ids={*served.stop_token_ids, *sampling.stop_token_ids},
            deltas=params.deltas,
        )

    async def _chunks(
        self, resolved: Resolved, params: GenerateParams, served: ServedModel, watch: RequestWatch
    ) -> AsyncGenerator[Chunk, None]:
        stream = served.engine.generate(resolved.request)
        async with aclosing(stream):
            first = asyncio.ensure_future(anext(stream, None))
            try:
                # The engine has a line of its own, and a long prompt takes its time.
                while not (await asyncio.wait((first,), timeout=self.settings.keep_alive_s))[0]:
                    yield self._empty(resolved, params, served)
            except BaseException:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)
                raise
            answer = self._new_answer(resolved, params, served)
            events = _watched(first.result(), stream, watch)
            interval = params.stream_interval or self.settings.stream_interval
            told = chunks_of(events, answer, interval=interval, gap_s=self._gap_s)
            async with aclosing(told) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _gap_s(self) -> float:
        """Seconds between two chunks of a stream: none for a few streams, more for many.

        A chunk costs all processes on its way about as much as computing several tokens.
        """
        return min(_LONGEST_GAP_S, max(0, self.slots.in_use - _FEW) * _GAP_S)

    def _empty(self, resolved: Resolved, params: GenerateParams, served: ServedModel) -> Chunk:
        if params.deltas:
            resolved = dataclasses.replace(resolved, echo="")
        return self._new_answer(resolved, params, served).chunk()

    async def embeddings(self, params: EmbeddingsParams) -> EmbeddingsAnswer:
        """Embeds texts or rows of token ids; takes a slot as generating does."""
        self.check_room()
        served = self.served(params.model)
        rows = params.token_ids
        if rows is None:
            encode = partial(served.codec.encode_ids, parse_special=False)
            rows = await asyncio.to_thread(list, map(encode, params.input))
        with _unexpected_reported(), self.slots.claim() as claim:
            await claim.granted.wait()
            vectors, read = await embed(
                served.engine, rows, truncate=self.settings.embed_in_truncate
            )
        if params.encoding_format == "base64":
            return EmbeddingsAnswer(embedding=[as_base64(v) for v in vectors], token_num=read)
        return EmbeddingsAnswer(embedding=vectors, token_num=read)

    def count_token(self, params: CountTokenParams) -> CountTokenAnswer:
        """See `WorkerFace.count_token`."""
        question = GenerateParams(messages=params.messages, prompt=params.prompt)
        served = self.served(params.model)
        if params.messages is None and not params.prompt:
            return CountTokenAnswer(count=0)
        return CountTokenAnswer(count=len(prompt_of(question, served)[0]))

    def tokenize(self, params: CountTokenParams) -> TokenizeAnswer:
        """See `WorkerFace.tokenize`."""
        served = self.served(params.model)
        ids: list[int] = []
        if params.messages is not None or params.prompt:
            question = GenerateParams(messages=params.messages, prompt=params.prompt)
            ids, _ = prompt_of(question, served)
        return TokenizeAnswer(
            tokens=ids,
            texts=[served.codec.decode_ids([token]) for token in ids],
            context_length=served.engine.context_length,
        )

    def detokenize(self, params: DetokenizeParams) -> DetokenizeAnswer:
        """The text of ids.

        Raises:
            RequestError: an id that the vocabulary does not have.
        """
        served = self.served(params.model)
        try:
            return DetokenizeAnswer(text=served.codec.decode_ids(params.tokens))
        except (IndexError, KeyError, ValueError, OverflowError, TypeError) as error:
            raise RequestError(
                "tokens holds an id that the model's vocabulary does not have.", param="tokens"
            ) from error

    def conv_template(self, model: str) -> Conversation:
        """See `WorkerFace.conv_template`."""
        return self.served(model).conversation

    async def open(self) -> None:
        """Loads the adapters.

        Raises:
            FastChatError: one cannot be read, or does not fit its model.
        """
        for name, adapter in self.settings.adapters.items():
            logger.info("Loading the adapter %s from %s", name, adapter.folder)
            await self.served(name).engine.load_adapter(name, adapter.folder)

    async def close(self) -> None:
        """Closes the engines."""
        for served in self.models:
            await served.engine.close()


async def _resolved(params: GenerateParams, served: ServedModel, adapter: str | None) -> Resolved:
    if text_size(params) < _LONG_TEXT:
        return resolve(params, served, adapter=adapter)
    # Tokenising takes long enough for others to notice.
    return await asyncio.to_thread(resolve, params, served, adapter=adapter)


async def _watched(
    first: GenerationEvent | None,
    events: AsyncGenerator[GenerationEvent, None],
    watch: RequestWatch,
) -> AsyncGenerator[GenerationEvent, None]:
    """An engine's events, counted as they pass."""
    if first is None:
        return
    watch.began(first.queued_s)
    watch.tokens(first.completion_tokens)
    last = first
    yield first
    async for event in events:
        watch.tokens(event.completion_tokens)
        last = event
        yield event
    if last.finish_reason is not None:
        watch.finished(last.finish_reason, last.prompt_tokens)


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
