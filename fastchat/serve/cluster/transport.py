"""HTTP between the processes of one cluster, with every failure as one of our errors.

Proxies of the environment are ignored: the processes of a cluster talk directly.
"""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from fastchat.errors import FastChatError, WorkerTimeoutError, WorkerUnavailableError
from fastchat.protocol.worker import error_of
from fastchat.serve.tracing import trace_headers

Answer = TypeVar("Answer", bound=BaseModel)

CONNECT_TIMEOUT_S = 5.0
_STREAMS_PER_CLIENT = 16
_KEEP_ALIVE_S = 2.0  # shorter than a server's, so that no connection is reused as it closes


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


class Clients:
    """HTTP clients that share the requests among them; a context manager.

    A client's pool looks at all of its connections for every request, so that one client
    would spend most of its time doing so with hundreds of streams open. There is no limit
    on streams; waiting is what the workers' queues are for.
    """

    def __init__(self) -> None:
        self._busy: dict[httpx2.AsyncClient, int] = {}

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, **more: Any
    ) -> AsyncGenerator[httpx2.Response, None]:
        """See `httpx2.AsyncClient.stream`."""
        client = self._least_used()
        self._busy[client] += 1
        try:
            async with client.stream(method, url, **more) as response:
                yield response
        finally:
            self._busy[client] -= 1

    def _least_used(self) -> httpx2.AsyncClient:
        # The first one with room, so that connections which exist are used again.
        for client, busy in self._busy.items():
            if busy < _STREAMS_PER_CLIENT:
                return client
        client = httpx2.AsyncClient(
            trust_env=False,
            verify=_tls(),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=_STREAMS_PER_CLIENT,
                keepalive_expiry=_KEEP_ALIVE_S,
            ),
        )
        self._busy[client] = 0
        return client

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in list(self._busy):
            await client.aclose()
        self._busy.clear()

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def new_client() -> Clients:
    """Clients for the processes of one cluster."""
    return Clients()


@asynccontextmanager
async def posted(
    client: Clients,
    url: str,
    body: Any,
    *,
    who: str,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[httpx2.Response, None]:
    """Posts JSON and gives the answer, whose body has not been read.

    `who` names the peer in errors, such as "worker"; it may be silent for `timeout_s`.

    Raises:
        WorkerUnavailableError: the peer cannot be reached, or broke off.
        WorkerTimeoutError: it was silent for too long.
        FastChatError: what the peer itself reported with an HTTP error.
    """
    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s), pool=None)
    try:
        async with client.stream(
            "POST", url, json=body, timeout=timeout, headers={**trace_headers(), **(headers or {})}
        ) as response:
            if response.status_code != httpx2.codes.OK:
                raise _reported(url, response.status_code, await response.aread(), who)
            yield response
    except (httpx2.ConnectTimeout, httpx2.ConnectError) as error:
        raise WorkerUnavailableError(f"The {who} at {url} cannot be reached: {error}.") from error
    except httpx2.TimeoutException as error:
        raise WorkerTimeoutError(
            f"The {who} at {url} sent nothing for {timeout_s:g} seconds."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise WorkerUnavailableError(f"The {who} at {url} broke off: {reason}.") from error


async def post(
    client: Clients,
    url: str,
    body: Any,
    *,
    who: str,
    timeout_s: float,
    answer: type[Answer],
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Posts JSON and reads an answer of a known shape. Raises as `posted` does."""
    async with posted(client, url, body, who=who, timeout_s=timeout_s, headers=headers) as response:
        data = await response.aread()
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


def _reported(url: str, status: int, body: bytes, who: str) -> FastChatError:
    return _error_in(body) or WorkerUnavailableError(
        f"The {who} at {url} answered with HTTP status {status}."
    )
