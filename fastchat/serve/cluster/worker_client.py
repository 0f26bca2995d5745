"""Asking a worker, and reading its streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastchat.constants import WORKER_API_TIMEOUT
from fastchat.conversation import Conversation, SeparatorStyle, conv_templates
from fastchat.errors import WorkerUnavailableError
from fastchat.protocol.worker import (
    Chunk,
    ConvTemplateAnswer,
    CountTokenAnswer,
    CountTokenParams,
    DetokenizeAnswer,
    DetokenizeParams,
    EmbeddingsAnswer,
    EmbeddingsParams,
    FrameReader,
    ModelDetails,
    TokenizeAnswer,
    WorkerStatus,
    error_of,
)
from fastchat.serve.cluster.connections import Connections
from fastchat.serve.cluster.transport import Answer, post, posted

_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerClient:
    """A worker at an address. Every method raises as `transport.post` does.

    Attributes:
        timeout_s: how long the worker may be silent: before an answer, between chunks.
    """

    http: Connections
    address: str
    timeout_s: float = WORKER_API_TIMEOUT

    def _url(self, path: str) -> str:
        return self.address.rstrip("/") + path

    async def _ask(
        self, path: str, body: object, answer: type[Answer], timeout_s: float | None = None
    ) -> Answer:
        return await post(
            self.http,
            self._url(path),
            body,
            who="worker",
            timeout_s=timeout_s or self.timeout_s,
            answer=answer,
        )

    async def status(self) -> WorkerStatus:
        """What it serves and how busy it is; the answer has to come within seconds."""
        return await self._ask("/worker_get_status", None, WorkerStatus, _STATUS_TIMEOUT_S)

    async def conv_template(self, model: str) -> Conversation:
        """The model's conversation template."""
        answer = await self._ask("/worker_get_conv_template", {"model": model}, ConvTemplateAnswer)
        known = Conversation.__dataclass_fields__
        fields = {name: value for name, value in answer.conv.items() if name in known}
        try:
            fields["sep_style"] = _style(fields)
            fields["roles"] = tuple(fields["roles"])
            return Conversation(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise WorkerUnavailableError(
                f"The worker at {self.address} sent a conversation template that cannot be read."
            ) from error

    async def context_length(self, model: str) -> int:
        """Prompt plus answer, in tokens, at most."""
        details = await self._ask("/model_details", {"model": model}, ModelDetails)
        return details.context_length

    async def count_token(self, model: str, prompt: str) -> int:
        """How many tokens a prompt takes."""
        body = {"model": model, "prompt": prompt}
        return (await self._ask("/count_token", body, CountTokenAnswer)).count

    async def tokenize(self, params: CountTokenParams) -> TokenizeAnswer:
        """A prompt's ids; workers of other makes do not know the question."""
        return await self._ask("/tokenize", params.model_dump(), TokenizeAnswer)

    async def detokenize(self, params: DetokenizeParams) -> DetokenizeAnswer:
        """The text of ids; workers of other makes do not know the question."""
        return await self._ask("/detokenize", params.model_dump(), DetokenizeAnswer)

    async def embeddings(self, params: EmbeddingsParams) -> EmbeddingsAnswer:
        """Embeds texts, or rows of token ids."""
        return await self._ask("/worker_get_embeddings", params.model_dump(), EmbeddingsAnswer)

    async def frames(self, params: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The frames of a generation stream as they come, whole and without zero bytes."""
        reader = FrameReader()
        async with posted(
            self.http,
            self._url("/worker_generate_stream"),
            params,
            who="worker",
            timeout_s=self.timeout_s,
        ) as response:
            async for data in response.pieces():
                for frame in reader.feed(data):
                    yield frame
        if reader.rest:
            raise WorkerUnavailableError(f"The worker at {self.address} broke off inside a chunk.")

    def _chunk(self, frame: bytes) -> Chunk:
        try:
            chunk: Chunk = json.loads(frame)
            if isinstance(chunk["text"], str):
                return chunk
        except (ValueError, KeyError, TypeError):
            pass
        raise WorkerUnavailableError(f"The worker at {self.address} sent no chunk: {frame!r:.80}.")

    async def generate_stream(self, params: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer, up to and including the one with a finish_reason.

        Raises:
            FastChatError: what the worker reported; or the stream ended before the answer.
        """
        async with aclosing(self.frames(params)) as frames:
            async for frame in frames:
                chunk = self._chunk(frame)
                error = error_of(chunk)
                if error is not None:
                    raise error
                yield chunk
                if chunk.get("finish_reason"):
                    return
        raise WorkerUnavailableError(
            f"The worker at {self.address} ended its stream before the answer was complete."
        )


def _style(fields: Mapping[str, Any]) -> SeparatorStyle:
    """A template's style: by its name if it is a known one, for numbers differ by release."""
    known = conv_templates.get(str(fields.get("name")))
    return SeparatorStyle(fields["sep_style"]) if known is None else known.sep_style
