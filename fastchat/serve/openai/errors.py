"""How errors look to clients of the API: OpenAI's body, and FastChat's older one beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fastchat.constants import ErrorCode
from fastchat.errors import FastChatError
from fastchat.serve.streaming import ClientGoneError, client_gone
from fastchat.serve.wire_errors import invalid_body

logger = logging.getLogger(__name__)

_NAMES: Mapping[ErrorCode, str] = {
    ErrorCode.VALIDATION_TYPE_ERROR: "invalid_type",
    ErrorCode.INVALID_AUTH_KEY: "invalid_api_key",
    ErrorCode.INCORRECT_AUTH_KEY: "invalid_api_key",
    ErrorCode.INVALID_MODEL: "model_not_found",
    ErrorCode.PARAM_OUT_OF_RANGE: "invalid_value",
    ErrorCode.CONTEXT_OVERFLOW: "context_length_exceeded",
    ErrorCode.RATE_LIMIT: "rate_limit_exceeded",
    ErrorCode.QUOTA_EXCEEDED: "insufficient_quota",
    ErrorCode.ENGINE_OVERLOADED: "engine_overloaded",
    ErrorCode.CUDA_OUT_OF_MEMORY: "out_of_memory",
    ErrorCode.CONTROLLER_NO_WORKER: "no_worker",
    ErrorCode.CONTROLLER_WORKER_TIMEOUT: "worker_timeout",
}

_HEADERS: Mapping[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "1"},
}


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def error_body(error: FastChatError) -> dict[str, Any]:
    """The JSON body of an error, also sent as the last event of a stream that fails."""
    message = str(error)
    openai = {
        "message": message,
        "type": _kind(error.status),
        "param": error.param,
        "code": _NAMES.get(error.code, "internal_error"),
    }
    body = {"error": openai, "object": "error", "message": message, "code": int(error.code)}
    if error.status == 401:
        body["detail"] = {"error": openai}
    return body


def error_response(error: FastChatError) -> JSONResponse:
    """An error as a complete response."""
    return JSONResponse(
        error_body(error), status_code=error.status, headers=_HEADERS.get(error.status)
    )


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, FastChatError)
    return error_response(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid_body(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    openai = {
        "message": message,
        "type": _kind(error.status_code),
        "param": None,
        "code": None,
    }
    body = {"error": openai, "object": "error", "message": message, "code": error.status_code}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def install_openai_errors(app: FastAPI) -> None:
    """Makes an application report its errors as OpenAI does."""
    app.add_exception_handler(FastChatError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGoneError, client_gone)
