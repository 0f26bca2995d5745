"""Server-sent events: how a stream starts, is written, and ends."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastchat.errors import FastChatError
from fastchat.serve.openai.errors import error_body
from fastchat.serve.openai.request_ids import request_id_of
from fastchat.serve.streaming import StreamBody, while_connected

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
STILL_WAITING = b": waiting\n\n"


def event(body: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


async def event_stream(
    request: Request, events: AsyncGenerator[bytes, None], *, end: bytes = DONE
) -> Response:
    """Answers with a stream of events, which ends in [DONE], after an error event if it fails.

    Args:
        request: what is answered.
        events: pieces of the stream.
        end: what it ends in.

    Raises:
        FastChatError: what went wrong before there was a first event; the client then gets
            a true HTTP status.
        ClientGoneError: the client left before there was a first event.
    """
    body = _guarded(events, request_id_of(request), end)
    first = await while_connected(request.receive, anext(body))
    return StreamBody(body, "text/event-stream", {"Cache-Control": "no-cache"}, first=first)


async def _guarded(
    events: AsyncGenerator[bytes, None], request_id: str, end: bytes
) -> AsyncGenerator[bytes, None]:
    started = False
    try:
        async with aclosing(events):
            async for piece in events:
                yield piece
                started = True
    except FastChatError as error:
        if not started:
            raise
        yield event(error_body(error, request_id))
    except Exception:
        if not started:
            raise
        logger.exception("The stream of %s failed", request_id)
        failure = FastChatError("The server failed; its log tells more.")
        yield event(error_body(failure, request_id))
    if end:
        yield end
