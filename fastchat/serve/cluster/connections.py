"""HTTP between the processes of one cluster: posts, and answers as they come in, by aiohttp.

With small requests and many chunks, the client's cost is most of what serving over HTTP adds;
aiohttp's is the smallest of the general ones. Proxies of the environment are ignored; redirects are
not followed. Knows nothing of workers or controllers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp

_KEEP_ALIVE_S = 2.0  # shorter than a server's, so that no connection is reused as it closes
_JSON = {"Content-Type": "application/json", "User-Agent": "fastchat"}


class UnreachableError(Exception):
    """Nothing can be connected to at an address."""


class Response:
    """An answer that has begun.

    Attributes:
        status: of the answer.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes. Raises as `Connections.post` does."""
        async for piece in self._response.content.iter_any():
            yield piece

    async def whole(self) -> bytes:
        """The answer's body. Raises as `Connections.post` does."""
        return await self._response.read()


class Connections:
    """Connections to any servers; those that an answer leaves open are used again.

    There is no limit on them: waiting is what the workers' queues are for. A context manager.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        silence_s: float,
    ) -> AsyncGenerator[Response, None]:
        """Posts JSON and gives the answer once it has begun.

        Args:
            url: of what is asked.
            body: as JSON.
            headers: beside those that every request has.
            connect_s: to get a connection at most.
            silence_s: without a byte of the answer at most.

        Raises:
            UnreachableError: nothing can be connected to there.
            TimeoutError: nothing came for so long.
            ConnectionError: the connection broke off, or what came is no HTTP.
            ValueError: the URL is none that can be asked; or a header that cannot be sent.
        """
        try:
            async with self._opened().post(
                url,
                data=body,
                headers={**_JSON, **headers},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=silence_s),
            ) as response:
                yield Response(response)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise UnreachableError(str(getattr(error, "os_error", error))) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise ValueError(f"{url!r} is no URL of a server") from error
        except TimeoutError:
            raise  # some of aiohttp's are errors of its own, too
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _opened(self) -> aiohttp.ClientSession:
        # Made in the loop that it is used in.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session
