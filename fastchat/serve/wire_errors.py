"""How the controller and the workers report errors over HTTP: `{text, error_code}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.responses import Response

from fastchat.constants import ErrorCode
from fastchat.errors import FastChatError, RequestError
from fastchat.protocol.worker import error_chunk
from fastchat.serve.streaming import ClientGoneError, client_gone


def invalid_body(problems: Sequence[Any]) -> RequestError:
    """The error for a body that does not fit its model.

    Args:
        problems: pydantic's list of errors; the first one is reported in full.
    """
    first = problems[0]
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    name = ".".join(path)
    given = first.get("input")
    shown = f" (given: {given!r:.100})" if path and not isinstance(given, dict) else ""
    more = f" There are {len(problems) - 1} more errors." if len(problems) > 1 else ""
    error = RequestError(f"{name or 'The body'}: {first['msg']}{shown}.{more}", param=name or None)
    error.code = ErrorCode.VALIDATION_TYPE_ERROR
    return error


def install_wire_errors(app: FastAPI) -> None:
    """Makes an application report its errors as `{text, error_code}`."""

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, FastChatError)
        return JSONResponse(error_chunk(error), status_code=error.status)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await known(request, invalid_body(error.errors()))

    app.add_exception_handler(FastChatError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientGoneError, client_gone)
