"""Calls of an OpenAI-compatible server, with every failure as an error of this project.

Knows HTTP and how such servers tell of errors; not what is asked.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2

from fastchat.constants import WORKER_API_TIMEOUT
from fastchat.errors import (
    AuthenticationError,
    FastChatError,
    GenerationError,
    OverloadedError,
    RequestError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)

_CONNECT_S = 5.0
_BY_STATUS: Mapping[int, type[FastChatError]] = {
    400: RequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: UnknownModelError,
    413: RequestError,
    422: RequestError,
    429: OverloadedError,
    503: WorkerUnavailableError,
    504: WorkerTimeoutError,
}


class OpenAICalls:
    """A connection to one server.

    Args:
        base_url: with the version, such as `http://localhost:8000/v1`.
        api_key: "" sends none.
        silence_s: how long the server may send nothing.
        flag: by which a person names the server, for messages.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        *,
        silence_s: float = WORKER_API_TIMEOUT,
        flag: str = "--url",
    ) -> None:
        self._base_url = base_url
        self._silence_s = silence_s
        self._flag = flag
        self._http = httpx2.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(silence_s, connect=_CONNECT_S, pool=None),
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=not on_this_machine(base_url),
        )

    @asynccontextmanager
    async def sent(
        self, method: str, url: str, **more: Any
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Sends a request; in the block its response, whose status is 200, can be read.

        Raises:
            FastChatError: the server refused, cannot be reached, or broke off.
        """
        where = self._base_url
        try:
            async with self._http.stream(method, url, **more) as response:
                if response.status_code != httpx2.codes.OK:
                    await response.aread()
                    raise _refused(where, response)
                yield response
        except (httpx2.ConnectTimeout, httpx2.ConnectError) as error:
            raise WorkerUnavailableError(
                f"The server at {where} cannot be reached: {error}.",
                hint=f"Start it, or name another one with {self._flag}.",
            ) from error
        except httpx2.TimeoutException as error:
            raise WorkerTimeoutError(
                f"The server at {where} sent nothing for {self._silence_s:g} seconds."
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise WorkerUnavailableError(f"The server at {where} broke off: {reason}.") from error

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._http.aclose()


def on_this_machine(url: str) -> bool:
    """Whether a URL names a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def json_object(data: bytes) -> dict[str, Any]:
    """Reads a body.

    Raises:
        WorkerUnavailableError: it is no JSON object.
    """
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise WorkerUnavailableError(f"The server sent what is no JSON object: {data!r:.80}.")
    return value


def error_in(body: Mapping[str, Any], kind: type[FastChatError]) -> FastChatError:
    """The error that a body tells of."""
    error = body.get("error", body)
    told = error.get("message") if isinstance(error, dict) else error
    return kind(str(told or body)[:1000])


def _refused(where: str, response: httpx2.Response) -> FastChatError:
    kind = _BY_STATUS.get(response.status_code, GenerationError)
    try:
        told = json.loads(response.content)
    except ValueError:
        told = None
    if isinstance(told, dict) and (told.get("error") or told.get("message")):
        error = error_in(told, kind)
    else:
        shown = response.text.strip()[:200] or "nothing"
        error = kind(
            f"The server at {where} answered with HTTP status {response.status_code}: {shown}."
        )
    if isinstance(error, OverloadedError):
        with suppress(KeyError, ValueError):  # it may be missing, or a date
            error.retry_after_s = max(0.0, float(response.headers["retry-after"]))
    return error
