"""A name for every request: in the answer's headers, in the logs, and at the worker."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.errors import FastChatError
from fastchat.protocol.openai_api_protocol import random_id
from fastchat.serve.openai.errors import error_response

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_USABLE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIds:
    """Middleware: keeps the client's X-Request-ID or makes one, and sends it back.

    A bug in the application becomes a 500 answer that bears the id, and a log record.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else random_id("req-")
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            logger.exception("Request %s failed", request_id)
            if started:
                raise
            error = FastChatError(f"The server failed; the log tells more of {request_id}.")
            await error_response(error)(scope, receive, send_named)


def request_id_of(request: Request) -> str:
    """The id of the request that is being answered."""
    return str(request.state.request_id)
