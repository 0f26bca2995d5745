"""Answers to the two questions that a controller hears thousands of times a second.

A body in, a model out. What goes well is answered here, without routing, dependencies and response
objects, which cost more than the answer; what does not is left to the application and its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.errors import FastChatError

QuickAnswer = Callable[[bytes, str], BaseModel]
"""From a body and the Authorization header; changes nothing if it raises, and must not block."""


class QuickRoutes:
    """Middleware: answers POST requests of JSON at some paths.

    Args:
        app: what is below; it serves the same paths, and is asked wherever `answers` raises a
            `FastChatError` or a `ValidationError`.
        answers: by path.
    """

    def __init__(self, app: ASGIApp, answers: Mapping[str, QuickAnswer]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        headers = dict(scope["headers"]) if answer is not None else {}
        # A page of another site may send anything but this type without being asked.
        if answer is None or headers.get(b"content-type") != b"application/json":
            await self._app(scope, receive, send)
            return
        first = await receive()
        body = first.get("body", b"")
        if first["type"] != "http.request" or first.get("more_body") or scope["method"] != "POST":
            await self._app(scope, _again(first, receive), send)
            return
        try:
            told = answer(body, headers.get(b"authorization", b"").decode("latin-1"))
        except (FastChatError, ValidationError):
            await self._app(scope, _again(first, receive), send)
            return
        data = told.model_dump_json().encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": data})


def _again(first: Message, receive: Receive) -> Receive:
    """The same messages from their beginning."""
    read = [first]

    async def received() -> Message:
        return read.pop() if read else await receive()

    return received
