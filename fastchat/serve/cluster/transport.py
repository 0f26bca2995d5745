"""What the processes of one cluster ask each other, with every failure as one of our errors."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fastchat.errors import FastChatError, WorkerTimeoutError, WorkerUnavailableError
from fastchat.protocol.worker import error_of
from fastchat.serve.cluster.connections import Connections, Response, UnreachableError
from fastchat.serve.tracing import trace_headers

Answer = TypeVar("Answer", bound=BaseModel)
Reported = Callable[[int, bytes], FastChatError | None]
"""From an HTTP error's status and body to the error that the peer tells of, if it tells one."""

CONNECT_TIMEOUT_S = 5.0
_OK = 200


@asynccontextmanager
async def posted(
    connections: Connections,
    url: str,
    body: Any,
    *,
    who: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    reported: Reported | None = None,
) -> AsyncGenerator[Response, None]:
    """Posts JSON and gives the answer, whose body has not been read.

    `who` names the peer in errors, such as "worker"; it may be silent for `timeout_s`.

    Raises:
        WorkerUnavailableError: the peer cannot be reached, or broke off.
        WorkerTimeoutError: it was silent for too long.
        FastChatError: what the peer itself reported with an HTTP error.
    """
    try:
        async with connections.post(
            url,
            json.dumps(body, ensure_ascii=False).encode(),
            {**trace_headers(), **(headers or {})},
            connect_s=min(CONNECT_TIMEOUT_S, timeout_s),
            silence_s=timeout_s,
        ) as response:
            if response.status != _OK:
                told = (reported or _reported)(response.status, await response.whole())
                raise told or WorkerUnavailableError(
                    f"The {who} at {url} answered with HTTP status {response.status}."
                )
            yield response
    except UnreachableError as error:
        raise WorkerUnavailableError(f"The {who} at {url} cannot be reached: {error}.") from error
    except TimeoutError as error:
        raise WorkerTimeoutError(
            f"The {who} at {url} sent nothing for {timeout_s:g} seconds."
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise WorkerUnavailableError(f"The {who} at {url} broke off: {reason}.") from error


async def post(
    connections: Connections,
    url: str,
    body: Any,
    *,
    who: str,
    timeout_s: float,
    answer: type[Answer],
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Posts JSON and reads an answer of a known shape. Raises as `posted` does."""
    async with posted(
        connections, url, body, who=who, timeout_s=timeout_s, headers=headers
    ) as response:
        data = await response.whole()
    error = _error_in(data)
    if error is not None:
        raise error
    try:
        return answer.model_validate_json(data)
    except ValidationError as problem:
        raise WorkerUnavailableError(f"What answers at {url} is no FastChat {who}.") from problem


def _error_in(body: bytes) -> FastChatError | None:
    try:
        answer = json.loads(body.rstrip(b"\0"))
    except ValueError:
        return None
    return error_of(answer) if isinstance(answer, Mapping) else None


def _reported(_: int, body: bytes) -> FastChatError | None:
    return _error_in(body)
