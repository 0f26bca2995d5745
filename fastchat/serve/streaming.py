"""Answering a client for as long as it is there, and not longer.

Small pieces over ASGI's `receive` and `send`; knows nothing of workers or of OpenAI.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

CLIENT_GONE_STATUS = 499


class ClientGoneError(Exception):
    """The client closed its connection before the answer was complete."""


async def while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientGoneError: the client left first; `work` has ended by then.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StreamBody(Response):
    """A response whose body is an async generator.

    The generator is closed as soon as the client leaves, whether or not it is about to
    yield, and in every other case too.

    Args:
        body: yields pieces of the body. It reports its own failures inside the body.
        first: a piece that was taken from it already.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes, None],
        media_type: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
        *,
        first: bytes = b"",
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)
        self._stream = body
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the body for as long as the client is there."""
        async with aclosing(self._stream):
            try:
                await while_connected(receive, self._send_all(send))
            except ClientGoneError:
                scope.setdefault("state", {})["client_gone"] = True

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if self._first:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for piece in self._stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def client_gone(_: Request, __: Exception) -> Response:
    """The exception handler for `ClientGoneError`: nobody will read this."""
    return Response(status_code=CLIENT_GONE_STATUS)
