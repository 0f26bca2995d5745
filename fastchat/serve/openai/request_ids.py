"""A name for every request: in the answer's headers, in the logs, and at the worker."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.errors import FastChatError
from fastchat.protocol.openai_api_protocol import random_id
from fastchat.serve.openai.errors import error_response
from fastchat.serve.streaming import CLIENT_GONE_STATUS

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
_USABLE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIds:
    """Middleware: keeps the client's X-Request-ID or makes one, and sends it back.

    Every request becomes a line in the log: its id, the name of its key, what was asked for
    and what came of it, and never what was in it; status 499 is a client that left. A bug in
    the application becomes a 500 answer that bears the id, and a log record.
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
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began, status = time.monotonic(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            logger.exception("Request %s failed", request_id)
            if status:
                raise
            error = FastChatError(f"The server failed; the log tells more of {request_id}.")
            await error_response(error, scope)(scope, receive, send_named)
        finally:
            logger.info(
                "%s %s%s %s %d in %.3f s",
                request_id,
                f"({state['key_name']}) " if state.get("key_name") else "",
                scope["method"],
                scope["path"][:200],
                CLIENT_GONE_STATUS if state.get("client_gone") or not status else status,
                time.monotonic() - began,
            )


def request_id_of(request: Request) -> str:
    """The id of the request that is being answered."""
    return str(request.state.request_id)


def answer_id(prefix: str, request: Request) -> str:
    """The id of an answer, which tells the request's; a prefix such as `chatcmpl-`."""
    return prefix + request_id_of(request).removeprefix("req-")
