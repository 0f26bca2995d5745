"""How errors look to clients of the API: OpenAI's body, and FastChat's older one beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from fastchat.constants import ErrorCode
from fastchat.errors import FastChatError, OverloadedError
from fastchat.serve.streaming import ClientGoneError, client_gone
from fastchat.serve.wire_errors import invalid_body

logger = logging.getLogger(__name__)

_NAMES: Mapping[ErrorCode, str] = {
    ErrorCode.VALIDATION_TYPE_ERROR: "invalid_type",
    ErrorCode.INVALID_AUTH_KEY: "invalid_api_key",
    ErrorCode.INCORRECT_AUTH_KEY: "invalid_api_key",
    ErrorCode.NO_PERMISSION: "forbidden",
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

_BY_STATUS: Mapping[int, str] = {408: "request_timeout", 413: "request_too_large"}


def _headers(error: FastChatError) -> dict[str, str]:
    if isinstance(error, OverloadedError):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    return {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def error_body(error: FastChatError, request_id: str = "") -> dict[str, Any]:
    """The JSON body of an error, also sent as the last event of a stream that fails."""
    message = str(error)
    openai = {
        "message": message,
        "type": _kind(error.status),
        "param": error.param,
        "code": _BY_STATUS.get(error.status) or _NAMES.get(error.code, "internal_error"),
    }
    body = {"error": openai, "object": "error", "message": message, "code": int(error.code)}
    if request_id:
        body["request_id"] = request_id
    if error.status == 401:
        body["detail"] = {"error": openai}
    return body


def error_response(error: FastChatError, scope: Scope) -> JSONResponse:
    """An error as the complete response to a request."""
    request_id = scope.get("state", {}).get("request_id", "")
    return JSONResponse(error_body(error, request_id), error.status, _headers(error))


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, FastChatError)
    return error_response(error, request.scope)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid_body(error.errors()), request.scope)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path:.200}"
    openai = {
        "message": message,
        "type": _kind(error.status_code),
        "param": None,
        "code": None,
    }
    body = {"error": openai, "object": "error", "message": message, "code": error.status_code}
    body["request_id"] = request.scope.get("state", {}).get("request_id", "")
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def install_openai_errors(app: FastAPI) -> None:
    """Makes an application report its errors as OpenAI does."""
    app.add_exception_handler(FastChatError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientGoneError, client_gone)
