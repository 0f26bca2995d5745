"""A worker whose models run elsewhere, behind any API that speaks as OpenAI's does.

It has the wire format of every worker, and turns what it is asked into requests of chat or
completions. Knows no tokenizer: tokens are counted by the other side, or estimated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from fastchat.conversation import Conversation
from fastchat.errors import (
    FastChatError,
    RequestError,
    WorkerUnavailableError,
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
from fastchat.serve.cluster.connections import Connections, Response
from fastchat.serve.cluster.transport import posted
from fastchat.serve.worker.face import WorkerFace
from fastchat.serve.worker.remote_stream import RemoteAnswer, data_lines
from fastchat.serve.worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model behind an API.

    Attributes:
        model_path: its name there.
        api_base: up to and including `/v1`.
        token: the API key there, "" for none.
        context_length: prompt plus answer, in tokens.
        conversation: the template that clients of other makes are told.
    """

    model_path: str
    api_base: str
    token: str
    context_length: int
    conversation: Conversation


class RemoteWorker(WorkerFace):
    """See the module.

    Args:
        models: by the names that they are served under.
        settings: how they are served.
        timeout_s: how long the other side may be silent.
    """

    def __init__(
        self,
        models: Mapping[str, RemoteModel],
        settings: WorkerSettings,
        *,
        timeout_s: float = 100.0,
    ) -> None:
        super().__init__(settings, list(models))
        self.registry = CollectorRegistry()
        self._models = dict(models)
        self._timeout_s = timeout_s
        self._http = Connections()

    def _model(self, name: str) -> RemoteModel:
        if name not in self._models:
            raise self.unknown(name)
        return self._models[name]

    def check_room(self) -> None:
        """The other side says when it is full."""

    def context_length(self, model: str) -> int:
        """See `WorkerFace.context_length`."""
        return self._model(model).context_length

    async def generate(self, params: GenerateParams) -> AsyncGenerator[Chunk, None]:
        """See `WorkerFace.generate`."""
        try:
            model = self._model(params.model)
            with self.slots.claim() as claim:
                await claim.granted.wait()
                async with aclosing(self._chunks(model, params)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except FastChatError as error:
            yield error_chunk(error)

    async def _chunks(
        self, model: RemoteModel, params: GenerateParams
    ) -> AsyncGenerator[Chunk, None]:
        path, body = request_of(model, params)
        answer = RemoteAnswer(params.prompt or "" if params.echo else "", deltas=params.deltas)
        async with self._posted(model, path, body) as response:
            async for line in data_lines(response.pieces()):
                for chunk in answer.add(line):
                    yield chunk
        yield answer.end()

    def _posted(
        self, model: RemoteModel, path: str, body: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Response]:
        return posted(
            self._http,
            model.api_base + path,
            body,
            who="API",
            timeout_s=self._timeout_s,
            headers={"Authorization": f"Bearer {model.token}"} if model.token else {},
            reported=partial(_reported, model),
        )

    async def embeddings(self, params: EmbeddingsParams) -> EmbeddingsAnswer:
        """See `WorkerFace.embeddings`."""
        model = self._model(params.model)
        rows: list[Any] = params.input if params.token_ids is None else params.token_ids
        body = {"model": model.model_path, "input": rows}
        if params.encoding_format is not None:
            body["encoding_format"] = params.encoding_format
        async with self._posted(model, "/embeddings", body) as response:
            answer = json.loads(await response.whole())
        vectors = [item["embedding"] for item in answer["data"]]
        return EmbeddingsAnswer(embedding=vectors, token_num=answer["usage"]["prompt_tokens"])

    def count_token(self, params: CountTokenParams) -> CountTokenAnswer:
        """An estimate: the other side's tokenizer is not here."""
        texts = [message["content"] for message in params.messages or []] or [params.prompt]
        count = sum(-(-len(text.encode()) // _BYTES_PER_TOKEN) for text in texts)
        return CountTokenAnswer(count=count)

    def tokenize(self, params: CountTokenParams) -> TokenizeAnswer:
        """Not possible here."""
        raise RequestError(f"The tokens of {params.model!r} are known elsewhere only.")

    def detokenize(self, params: DetokenizeParams) -> DetokenizeAnswer:
        """Not possible here."""
        raise RequestError(f"The tokens of {params.model!r} are known elsewhere only.")

    def conv_template(self, model: str) -> Conversation:
        """See `WorkerFace.conv_template`."""
        return self._model(model).conversation

    async def open(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()


_SAME = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_EXTRAS = ("top_k", "min_p", "repetition_penalty")


def request_of(model: RemoteModel, params: GenerateParams) -> tuple[str, dict[str, Any]]:
    """The path and the body that ask the other side for the same; pure.

    Values that nobody wished for are left to the other side.

    Raises:
        RequestError: token ids alone, which mean nothing to another tokenizer, or a grammar
            that OpenAI's API has no word for.
    """
    body: dict[str, Any] = {"model": model.model_path, "stream": True}
    body["stream_options"] = {"include_usage": True}
    body |= {
        name: getattr(params, name)
        for name in (*_SAME, *_EXTRAS)
        if params.wished(name) and getattr(params, name) is not None
    }
    if params.max_new_tokens is not None and params.wished("max_new_tokens"):
        body["max_tokens"] = params.max_new_tokens
    if params.stop:
        body["stop"] = params.stop
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    if params.grammar is not None:
        if params.grammar.kind != "json_schema":
            raise RequestError(
                f"A grammar of kind {params.grammar.kind} cannot be passed on; a JSON schema can."
            )
        schema = {"name": "answer", "schema": json.loads(params.grammar.text)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if params.messages is not None:
        return "/chat/completions", {**body, "messages": params.messages}
    if params.prompt is None:
        raise RequestError("Token ids cannot be passed on to another model.", param="prompt")
    return "/completions", {**body, "prompt": params.prompt}


def _reported(model: RemoteModel, status: int, body: bytes) -> FastChatError:
    try:
        told = json.loads(body)
        message = told["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"HTTP status {status}"
    kind = RequestError if status in (400, 404, 422) else WorkerUnavailableError
    return kind(f"{model.api_base} answered: {message}")
