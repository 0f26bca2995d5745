"""Routes for the two questions that a controller hears thousands of times a second.

A body in, a model out, as FastAPI would do it, without what FastAPI prepares for each request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from fastchat.errors import RequestError

Question = TypeVar("Question", bound=BaseModel)


def add_quick_route(
    app: FastAPI,
    path: str,
    question: type[Question],
    answer: Callable[[Request, Question], BaseModel],
) -> None:
    """Serves POST requests at a path.

    Args:
        app: reports the errors: those of `answer`, and `RequestValidationError` for a body that
            does not fit.
        path: exactly.
        question: what a body has to be, as JSON.
        answer: gives what is sent back as JSON; it must not block.
    """

    async def endpoint(request: Request) -> Response:
        # A page of another site may send anything but this type without being asked.
        kind = request.headers.get("Content-Type", "")
        if not kind.startswith("application/json"):
            raise RequestError(f"The body has to be application/json, not {kind!r:.100}.")
        try:
            asked = question.model_validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        return Response(answer(request, asked).model_dump_json(), media_type="application/json")

    app.add_route(path, endpoint, methods=["POST"], include_in_schema=False)
