"""Bodies that no handler should see: too large, too slow, too deep, or not text.

A middleware reads a body once, within limits, and hands it on whole.
"""

from __future__ import annotations

import asyncio
import json
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.constants import ErrorCode
from fastchat.errors import DeadlineError, FastChatError, RequestError, TooLargeError
from fastchat.serve.openai.errors import error_response
from fastchat.serve.openai.settings import AppSettings

MAX_DEPTH = 64
"""Objects and lists inside each other; schemas of real life have fewer than twenty."""

_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def check_text(body: bytes) -> None:
    """Makes sure that a body is UTF-8, is not nested too deeply, and has no half characters.

    What is JSON otherwise is left to whoever parses it.

    Raises:
        RequestError: says what is wrong.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8: byte {error.start} is {error.reason}.") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH:
        raise _malformed(f"The body is nested more than {MAX_DEPTH} levels deep.")
    if b"\\ud" in body or b"\\uD" in body:
        _check_surrogates(body)


def depth(body: bytes) -> int:
    """How deep objects and lists lie inside each other, `MAX_DEPTH` + 1 at most."""
    level = deepest = 0
    for match in _MARKS.finditer(body):
        mark = match[0]
        if mark in b"[{":
            level += 1
            deepest = max(deepest, level)
            if deepest > MAX_DEPTH:
                break
        elif mark in b"]}":
            level -= 1
    return deepest


def _check_surrogates(body: bytes) -> None:
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except (ValueError, RecursionError):
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _malformed("The body holds half of a surrogate pair, which is no character.") from (
            error
        )


def _malformed(message: str) -> RequestError:
    error = RequestError(message)
    error.code = ErrorCode.VALIDATION_TYPE_ERROR
    return error


class BodyGuard:
    """Middleware that answers 413, 408 or 400 to such bodies."""

    def __init__(self, app: ASGIApp, *, settings: AppSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
            if body is None:
                return
            check_text(body)
        except FastChatError as error:
            await error_response(error, scope)(scope, receive, send)
            return
        handed_on = False

        async def whole() -> Message:
            nonlocal handed_on
            if handed_on:
                return await receive()
            handed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, whole, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client leaves before it is complete."""
        limit, patience_s = self._settings.max_body_bytes, self._settings.body_timeout_s
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        while True:
            try:
                message = await asyncio.wait_for(receive(), patience_s)
            except TimeoutError:
                raise DeadlineError(
                    f"Nothing more of the body has come for {patience_s:g} s."
                ) from None
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return b"".join(parts)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"The body has more than {limit} bytes, which is the limit.",
        hint="Send less at once; the server's --max-body-bytes sets the limit.",
    )
