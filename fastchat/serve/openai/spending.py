"""Counts what a request has used against its key, however the request ends."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from starlette.requests import Request

from fastchat.protocol.worker import Usage
from fastchat.serve.tracing import describe


@contextmanager
def spending(
    request: Request, model: str, usages: Mapping[int, Usage]
) -> Generator[None, None, None]:
    """Counts the usages at the end of the block, whatever they hold by then."""
    try:
        yield
    finally:
        describe("chat", model, usages.values())
        spend(request, sum(usage["total_tokens"] for usage in usages.values()))


def spend(request: Request, tokens: int) -> None:
    """Counts tokens against the key of a request, if it came with one."""
    count = getattr(request.state, "spend", None)
    if count is not None and tokens:
        count(tokens)
