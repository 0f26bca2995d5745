"""HTTP/1.1 between the processes of one cluster: posts, and answers as they come in.

Does what such calls need and nothing else, at a fraction of what a general client costs: with
small requests and many chunks, that cost is most of what serving over HTTP adds. Proxies of the
environment are ignored; redirects are not followed. Knows nothing of workers or controllers.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import httpx2

_KEEP_ALIVE_S = 2.0  # shorter than a server's, so that no connection is reused as it closes
_MOST_UNREAD = 1 << 18  # bytes of an answer that wait for their reader


class Target(NamedTuple):
    """Where a URL leads; `shown` is the host as a request names it."""

    secure: bool
    host: str
    port: int
    shown: str
    path: str


@functools.lru_cache(maxsize=4096)
def target_of(url: str) -> Target:
    """Takes a URL apart.

    Raises:
        ValueError: it is none that can be asked.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable():
        raise ValueError(f"{url!r} is no URL of a server")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = parts.netloc.rpartition("@")[2]
    return Target(secure, parts.hostname, parts.port or (443 if secure else 80), shown, path)


@functools.cache
def tls() -> ssl.SSLContext:
    """The certificates that servers are trusted by."""
    return httpx2.create_ssl_context()


class Response(asyncio.Protocol):
    """A connection, and the answer that comes over it.

    Attributes:
        status: of the answer, once it has begun.
        reusable: whether the answer is complete and the connection can take another request.
    """

    status = 0
    reusable = False

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser | None = None
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._paused = False
        self._begun = self._complete = self._sized = self._closed = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._silence_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether the other side, or this one, has closed the connection."""
        return self._closed

    def close(self) -> None:
        """Gives the connection up, with whatever is still coming."""
        self._closed, self.reusable = True, False
        self._transport.abort()

    async def ask(self, request: bytes, silence_s: float) -> None:
        """Sends a request; returns when its answer has begun.

        Raises:
            TimeoutError: nothing came for so long.
            ConnectionError: the connection broke off, or what came is no HTTP.
        """
        self._parser = httptools.HttpResponseParser(self)
        self._begun = self._complete = self._sized = self.reusable = False
        self._silence_s = silence_s
        self._transport.write(request)
        while not self._begun:
            await self._news()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes. Raises as `ask` does."""
        while True:
            if self._pieces:
                data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces.clear()
                self._unread = 0
                if self._paused and not self._closed:
                    self._paused = False
                    self._transport.resume_reading()
                yield data
            elif self._complete:
                return
            else:
                await self._news()

    async def whole(self) -> bytes:
        """The answer's body. Raises as `ask` does."""
        return b"".join([piece async for piece in self.pieces()])

    async def _news(self) -> None:
        """Waits until something has happened."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise ConnectionError("the connection was closed")
        self._waiter = self._loop.create_future()
        overdue = self._loop.call_later(self._silence_s, self._overdue)
        try:
            await self._waiter
        finally:
            overdue.cancel()
            self._waiter = None

    def _overdue(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What follows is called by the event loop, and by the parser.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._parser is None:
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._failure = ConnectionError(f"what came is no HTTP: {error}")
            self.close()
        if self._unread > _MOST_UNREAD and not self._paused and not self._closed:
            self._paused = True
            self._transport.pause_reading()
        if self._complete:
            self._parser = None
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._closed, self.reusable = True, False
        if self._begun and not self._sized and exc is None:
            self._complete = True  # such a body ends where the connection does
        self._failure, self._parser = self._failure or exc, None
        self._wake()

    def on_header(self, name: bytes, _: bytes) -> None:
        """Notes whether the body says where it ends."""
        self._sized = self._sized or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """The answer has begun."""
        assert self._parser is not None
        self.status, self._begun = self._parser.get_status_code(), True

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._pieces.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        assert self._parser is not None
        self._complete, self.reusable = True, self._parser.should_keep_alive()


class Connections:
    """Connections to any servers; those that an answer leaves open are used again.

    There is no limit on them: waiting is what the workers' queues are for. A context manager.
    """

    def __init__(self) -> None:
        self._idle: defaultdict[Target, deque[Response]] = defaultdict(deque)
        self._busy: set[Response] = set()

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
            TimeoutError, ConnectionError: see `Response.ask`.
            ValueError: see `target_of`; or a header that cannot be sent.
        """
        target = target_of(url)
        request = _head(target, len(body), headers) + body
        response = await self._connected(target, connect_s)
        self._busy.add(response)
        try:
            await response.ask(request, silence_s)
            yield response
        finally:
            self._busy.discard(response)
            self._give_back(target, response)

    async def _connected(self, target: Target, connect_s: float) -> Response:
        idle = self._idle[target._replace(path="")]
        fresh = time.monotonic() - _KEEP_ALIVE_S
        while idle:
            known = idle.pop()
            if not known.closed and known.idle_since >= fresh:
                return known
            known.close()
        try:
            async with asyncio.timeout(connect_s):
                _, response = await asyncio.get_running_loop().create_connection(
                    Response, target.host, target.port, ssl=tls() if target.secure else None
                )
        except TimeoutError:
            raise UnreachableError(f"no connection within {connect_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        return response

    def _give_back(self, target: Target, response: Response) -> None:
        if not response.reusable:
            response.close()
            return
        now = time.monotonic()
        idle = self._idle[target._replace(path="")]
        while idle and (idle[0].closed or idle[0].idle_since < now - _KEEP_ALIVE_S):
            idle.popleft().close()
        response.idle_since = now
        idle.append(response)

    async def aclose(self) -> None:
        """Closes all connections."""
        for response in (*self._busy, *(each for idle in self._idle.values() for each in idle)):
            response.close()
        self._idle.clear()

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class UnreachableError(Exception):
    """Nothing can be connected to at an address."""


def _head(target: Target, size: int, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.shown}",
        "User-Agent: fastchat",
        "Accept: */*",
        "Content-Type: application/json",
        f"Content-Length: {size}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds the end of a line")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
