"""What /openapi.json says of answers: each status that a route may have, and what it then holds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from fastchat.protocol.openai_api_protocol import ErrorResponse


class ErrorDetail(BaseModel):
    """An error as OpenAI tells it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(ErrorResponse):
    """The body of every error: OpenAI's, and FastChat's beside it."""

    error: ErrorDetail
    request_id: str | None = None


Documented = dict[int | str, dict[str, Any]]

_ERRORS = {
    400: "A field that is missing, unknown, of the wrong kind or out of its range",
    401: "No API key, or a wrong one",
    403: "Not allowed",
    404: "No such model or route",
    408: "The body came too slowly, or the request waited too long",
    413: "The body is too large",
    422: "Not used; see 400",
    429: "The queue is full, or the key has used up what it may for now",
    500: "This request failed in the server",
    503: "No worker is there, or it went away",
    504: "The worker sent nothing for too long",
}

ERRORS: Documented = {
    status: {"model": ErrorAnswer, "description": what} for status, what in _ERRORS.items()
}


def answer(model: type[BaseModel], *, streamed: bool = False) -> Documented:
    """What a route answers when all is well: a model, or a stream of events too."""
    found: dict[str, Any] = {"model": model, "description": "The answer"}
    if streamed:
        found["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    return {200: found}
