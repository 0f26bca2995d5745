"""A model behind an OpenAI-compatible URL: asks, and asks again where that may help."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fastchat.errors import (
    FastChatError,
    GenerationError,
    OverloadedError,
    SettingsError,
    WorkerUnavailableError,
)
from fastchat.llm_judge.asking import PASSING, Messages, Reply
from fastchat.openai_calls import OpenAICalls, json_object

OPENAI = "https://api.openai.com/v1"
_PAUSES_S = (1.0, 4.0, 15.0, 30.0)
_TRIES_BEFORE_THE_FIRST_REPLY = 2
_SILENCE_S = 600.0
_FLAG = "--openai-api-base"

Sleep = Callable[[float], Awaitable[object]]


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --openai-api-base and --api-key."""
    environment = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
    parser.add_argument(
        _FLAG,
        default=environment or OPENAI,
        metavar="URL",
        help="any server with OpenAI's API, such as http://localhost:8000/v1; OPENAI_API_BASE in"
        " the environment (default: %(default)s)",
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("OPENAI_API_KEY", ""),
        metavar="KEY",
        help="OPENAI_API_KEY in the environment",
    )


def check_server(url: str, key: str, flag: str = _FLAG) -> None:
    """Notices before the first call that OpenAI's own server needs a key.

    Raises:
        SettingsError: there is none.
    """
    if url.rstrip("/") == OPENAI and not key:
        raise SettingsError(
            f"{OPENAI} needs a key, and none is given.",
            hint=f"Set OPENAI_API_KEY, or name another server with {flag}.",
            param=flag,
        )


class ApiModel:
    """A model of a server; an asynchronous context that closes the connection.

    Args:
        url: the API's, with the version.
        key: "" sends none.
        model: its name there.
        max_tokens: a reply's longest length.
        flag: by which a person names the server, for messages.
        sleep: waits between tries.
    """

    def __init__(
        self,
        url: str,
        key: str,
        model: str,
        *,
        max_tokens: int,
        flag: str = _FLAG,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._calls = OpenAICalls(url, key, silence_s=_SILENCE_S, flag=flag)
        self._model = model
        self._max_tokens = max_tokens
        self._sleep = sleep
        self._replied = False

    async def __aenter__(self) -> ApiModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._calls.close()

    async def reply(self, messages: Messages, *, temperature: float, seed: int) -> Reply:
        """See `Asker.reply`; the seed is not sent, as not every server takes one."""
        del seed
        body = {
            "model": self._model,
            "messages": messages,
            "temperature": temperature,
            "max_tokens": self._max_tokens,
        }
        for tries, pause_s in enumerate(_PAUSES_S):
            try:
                return await self._once(body)
            except WorkerUnavailableError as error:
                if not self._replied and tries >= _TRIES_BEFORE_THE_FIRST_REPLY:
                    raise SettingsError(error.message, hint=error.hint) from error
                await self._sleep(pause_s)
            except PASSING as error:
                await self._sleep(max(pause_s, _asked_for(error)))
        return await self._once(body)

    async def _once(self, body: dict[str, Any]) -> Reply:
        async with self._calls.sent("POST", "chat/completions", json=body) as response:
            told = json_object(await response.aread())
        try:
            (choice, *_) = told["choices"]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GenerationError(
                f"The server sent what is no chat completion: {str(told)[:200]}."
            ) from error
        if not isinstance(text, str):
            raise GenerationError(f"The server sent no text; it ended with {reason!r}.")
        self._replied = True
        return Reply(text, cut=reason == "length")


def _asked_for(error: FastChatError) -> float:
    return error.retry_after_s if isinstance(error, OverloadedError) else 0.0
