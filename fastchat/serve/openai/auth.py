"""Who may call the API."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.requests import Request

from fastchat.constants import ErrorCode
from fastchat.errors import AuthenticationError
from fastchat.serve.openai.settings import AppSettings


def api_key_check(settings: AppSettings) -> Callable[[Request], None]:
    """A dependency that lets requests with one of the settings' keys pass.

    Keys are compared in constant time, every one of them.
    """

    def check(request: Request) -> None:
        if not settings.api_keys:
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            error = AuthenticationError(
                "No API key was sent.", hint="Send it as 'Authorization: Bearer KEY'."
            )
            error.code = ErrorCode.INVALID_AUTH_KEY
            raise error
        given = token.strip().encode("latin-1")  # as headers are decoded
        matches = [hmac.compare_digest(given, key.encode()) for key in settings.api_keys]
        if not any(matches):
            raise AuthenticationError("The API key is wrong.")

    return check
