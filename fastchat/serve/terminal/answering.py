"""One answer from a loaded model, as it grows. Knows no terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastchat.engine.served import ServedModel
from fastchat.protocol.worker import GenerateParams
from fastchat.serve.worker.resolve import resolve


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags ask of every answer; None leaves it to the model's own defaults."""

    temperature: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None

    def params(self, messages: list[dict[str, str]], fallback_tokens: int) -> GenerateParams:
        """The same as a worker would be told, so that one rule decides which value counts."""
        values: dict[str, Any] = {
            "temperature": (self.temperature, 0.7),
            "repetition_penalty": (self.repetition_penalty, 1.0),
            "max_new_tokens": (self.max_new_tokens, fallback_tokens),
        }
        return GenerateParams(
            messages=messages,
            echo=False,
            unset=[name for name, (wish, _) in values.items() if wish is None],
            **{
                name: fallback if wish is None else wish
                for name, (wish, fallback) in values.items()
            },
        )


@dataclass(slots=True)
class Answered:
    """An answer, complete or stopped.

    Attributes:
        stopped: whether it was interrupted.
        tokens: tokens generated.
    """

    text: str = ""
    stopped: bool = False
    tokens: int = 0


async def answer(
    served: ServedModel, params: GenerateParams, write: Callable[[str], None]
) -> Answered:
    """Generates one answer, handing out text as it comes.

    Cancelling it stops the answer and keeps what there is.

    Raises:
        FastChatError: the model cannot answer.
    """
    found = Answered()
    stream = served.engine.generate(resolve(params, served).request)
    async with aclosing(stream) as events:
        try:
            async for event in events:
                found.text += event.text
                found.tokens = event.completion_tokens
                write(event.text)
        except asyncio.CancelledError:
            found.stopped = True
    return found
