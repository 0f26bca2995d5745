"""What every worker is to the routes, wherever its models run. Knows nothing of HTTP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from prometheus_client import CollectorRegistry

from fastchat.conversation import Conversation
from fastchat.errors import GenerationError, UnknownModelError
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
    WorkerStatus,
    error_chunk,
)
from fastchat.serve.draining import Drain
from fastchat.serve.worker.settings import WorkerSettings
from fastchat.serve.worker.slots import Slots


class WorkerFace(ABC):
    """Served models, the places in front of them, and what is asked of them.

    Attributes:
        registry: the worker's metrics.
        model_names: what it tells others that it serves.
    """

    registry: CollectorRegistry

    def __init__(self, settings: WorkerSettings, model_names: Sequence[str]) -> None:
        self.settings = settings
        self.model_names = list(model_names)
        self.slots = Slots(settings.limit_worker_concurrency)
        self.drain = Drain()

    def status(self) -> WorkerStatus:
        """What is served, and the requests running and waiting."""
        busy = self.slots.in_use + self.slots.waiting
        return WorkerStatus(model_names=self.model_names, speed=1, queue_length=busy)

    def unknown(self, model: str) -> UnknownModelError:
        """The error for a name under which nothing is served."""
        return UnknownModelError(
            f"This worker serves no model named {model!r}.",
            hint=f"Models: {', '.join(self.model_names)}.",
            param="model",
        )

    async def last_chunk(self, params: GenerateParams) -> Chunk:
        """The complete answer, or the failure."""
        last = error_chunk(GenerationError("The engine ended without an answer."))
        async with aclosing(self.generate(params.model_copy(update={"deltas": False}))) as chunks:
            async for chunk in chunks:
                last = chunk
        return last

    @abstractmethod
    def check_room(self) -> None:
        """Refuses a request early, where it would only make the line longer.

        Raises:
            OverloadedError: the line is full.
        """

    @abstractmethod
    def context_length(self, model: str) -> int:
        """Prompt plus answer of a model, in tokens."""

    @abstractmethod
    def generate(self, params: GenerateParams) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer; a failure is told in a last chunk.

        Closing the generator aborts the request and frees its slot.
        """

    @abstractmethod
    async def embeddings(self, params: EmbeddingsParams) -> EmbeddingsAnswer:
        """Embeds texts or rows of token ids."""

    @abstractmethod
    def count_token(self, params: CountTokenParams) -> CountTokenAnswer:
        """How many tokens a prompt takes, rendered first if it is messages."""

    @abstractmethod
    def tokenize(self, params: CountTokenParams) -> TokenizeAnswer:
        """The ids of a prompt, or of messages with the chat template around them."""

    @abstractmethod
    def detokenize(self, params: DetokenizeParams) -> DetokenizeAnswer:
        """The text of ids."""

    @abstractmethod
    def conv_template(self, model: str) -> Conversation:
        """The model's conversation template."""

    @abstractmethod
    async def open(self) -> None:
        """What has to be there before the first request."""

    @abstractmethod
    async def close(self) -> None:
        """Gives everything up."""
