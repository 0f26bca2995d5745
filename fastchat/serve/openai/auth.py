"""Who may call the API, and how much."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request

from fastchat.constants import ErrorCode
from fastchat.errors import AuthenticationError, RateLimitError
from fastchat.serve.openai.limits import Allowance, ApiKey
from fastchat.serve.openai.settings import AppSettings


def api_key_check(
    settings: AppSettings, *, now: Callable[[], float] = time.monotonic
) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets requests with one of the settings' keys pass.

    Keys are compared in constant time, every one of them. The key's name goes into the log;
    its limits are kept.
    """
    allowances: dict[ApiKey, Allowance] = {}

    async def check(request: Request) -> None:  # or FastAPI would run it in a thread
        if not settings.api_keys:
            return
        found = _matching(request.headers.get("Authorization", ""), settings.api_keys)
        request.state.key_name = found.name
        allowance = allowances.setdefault(found, Allowance(found))
        wait_s = allowance.wait_s(now=now())
        if wait_s > 0:
            error = RateLimitError(
                "This API key has used up what it may for now.",
                hint=f"Try again in {wait_s:.0f} s.",
            )
            error.retry_after_s = wait_s
            raise error
        allowance.request(now=now())
        request.state.spend = lambda tokens: allowance.tokens(tokens, now=now())

    return check


def _matching(header: str, keys: Sequence[ApiKey | str]) -> ApiKey:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        error = AuthenticationError(
            "No API key was sent.", hint="Send it as 'Authorization: Bearer KEY'."
        )
        error.code = ErrorCode.INVALID_AUTH_KEY
        raise error
    given = token.strip().encode("latin-1")  # as headers are decoded
    known = [key if isinstance(key, ApiKey) else ApiKey(key) for key in keys]
    matches = [hmac.compare_digest(given, each.key.encode()) for each in known]
    if not any(matches):
        raise AuthenticationError("The API key is wrong.")
    return known[matches.index(True)]
