"""One answer as it grows, from a loaded model or from a server. Knows no terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastchat.protocol.worker import GenerateParams
from fastchat.serve.talking.answer import STOPPED, Answer, Progress, Question
from fastchat.serve.talking.backend import Backend, ask

if TYPE_CHECKING:
    from fastchat.engine.served import ServedModel


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags ask of every answer; None leaves it to the model's own defaults."""

    temperature: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    top_p: float | None = None

    def params(self, messages: list[dict[str, str]], fallback_tokens: int) -> GenerateParams:
        """The same as a worker would be told, so that one rule decides which value counts."""
        values: dict[str, Any] = {
            "temperature": (self.temperature, 0.7),
            "repetition_penalty": (self.repetition_penalty, 1.0),
            "top_p": (self.top_p, 1.0),
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
        answer: all that is known of it.
    """

    text: str = ""
    stopped: bool = False
    tokens: int = 0
    answer: Answer | None = None


async def answer(
    served: ServedModel, params: GenerateParams, write: Callable[[str], None]
) -> Answered:
    """Generates one answer with a loaded model, handing out text as it comes.

    Cancelling it stops the answer and keeps what there is.

    Raises:
        FastChatError: the model cannot answer.
    """
    from fastchat.serve.worker.resolve import resolve

    found = Answered(answer=Answer(params.request_id, time.monotonic()))
    assert found.answer is not None
    stream = served.engine.generate(resolve(params, served).request)
    async with aclosing(stream) as events:
        try:
            async for event in events:
                found.text += event.text
                found.tokens = event.completion_tokens
                told = Progress(found.text, event.completion_tokens, None, event.finish_reason)
                found.answer.hear(told, time.monotonic())
                write(event.text)
        except asyncio.CancelledError:
            found.stopped = True
            found.answer.finish_reason = STOPPED
    return found


async def answer_from(
    backend: Backend, question: Question, write: Callable[[str], None]
) -> Answered:
    """As `answer`, from a server.

    Raises:
        FastChatError: the server cannot answer, or broke off.
    """
    found = Answered()
    try:
        async with aclosing(ask(backend, question, time.monotonic)) as answers:
            async for growing in answers:
                write(growing.text[len(found.text) :])
                found.text, found.tokens = growing.text, growing.tokens or 0
                found.answer = growing
    except asyncio.CancelledError:
        found.stopped = True
        if found.answer is not None:
            found.answer.finish_reason = STOPPED
    return found


def figures(answered: Answered) -> str:
    """An answer's figures in a line; "" if nothing is known."""
    found = answered.answer
    if found is None:
        return ""
    parts = []
    if found.tokens is not None:
        parts.append(f"{found.tokens} tokens")
    if found.tokens_per_s is not None:
        parts.append(f"{found.tokens_per_s:.1f} tokens/s")
    if found.first_token_s is not None:
        parts.append(f"first after {found.first_token_s:.2f} s")
    if found.finish_reason is not None:
        parts.append(found.finish_reason)
    return ", ".join(parts)
