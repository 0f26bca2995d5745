"""Where answers come from, and asking for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from fastchat.errors import FastChatError, UnknownModelError
from fastchat.serve.talking.answer import Answer, Progress, Question


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a model's context a text takes, in tokens."""

    tokens: int
    context: int


class Backend(Protocol):
    """Answers questions. Every method raises a `FastChatError` that tells the true cause."""

    async def models(self) -> list[str]:
        """Names of the models that can be asked."""
        ...

    def stream(self, question: Question) -> AsyncGenerator[Progress, None]:
        """The answer as it grows; closing the iterator gives the request up."""
        ...

    async def room(self, model: str, text: str) -> Room | None:
        """How much room a text takes; None if the server cannot tell."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


async def ask(
    backend: Backend, question: Question, clock: Callable[[], float]
) -> AsyncGenerator[Answer, None]:
    """Asks, and yields the one answer again and again as it grows.

    Raises:
        FastChatError: there will be no more of the answer.
    """
    answer = Answer(question.request_id, clock())
    async with aclosing(backend.stream(question)) as news:
        async for progress in news:
            answer.hear(progress, clock())
            yield answer


class Backends:
    """Several backends as one: a model is asked where it was found last.

    A backend that cannot tell its models has none, unless none of them can.
    """

    def __init__(self, *backends: Backend) -> None:
        self._backends = backends
        self._homes: dict[str, Backend] = {}

    async def models(self) -> list[str]:
        """See `Backend.models`: those of the first backend first, each name once.

        Raises:
            FastChatError: no backend could tell its models.
        """
        homes: dict[str, Backend] = {}
        errors = []
        for backend in self._backends:
            try:
                for model in await backend.models():
                    homes.setdefault(model, backend)
            except FastChatError as error:
                errors.append(error)
        if errors and not homes:
            raise errors[0]
        self._homes = homes
        return list(homes)

    async def _home(self, model: str) -> Backend:
        if model not in self._homes:
            models = await self.models()
            if model not in models:
                raise UnknownModelError(
                    f"There is no model named {model!r}.",
                    hint=f"Models that are served: {', '.join(models) or 'none'}.",
                    param="model",
                )
        return self._homes[model]

    async def stream(self, question: Question) -> AsyncGenerator[Progress, None]:
        """See `Backend.stream`."""
        home = await self._home(question.model)
        async with aclosing(home.stream(question)) as news:
            async for progress in news:
                yield progress

    async def room(self, model: str, text: str) -> Room | None:
        """See `Backend.room`."""
        return await (await self._home(model)).room(model, text)

    async def close(self) -> None:
        """See `Backend.close`."""
        for backend in self._backends:
            await backend.close()
