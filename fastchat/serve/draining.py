"""Ending a process without breaking what it is doing.

Knows nothing of workers or of OpenAI: which paths are work, and how a refusal looks, is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

DRAIN_S = 60.0
"""How long what runs may take to finish once a process has been asked to end."""


class Drain:
    """Whether new work is taken on, and how much is going on."""

    def __init__(self) -> None:
        self.begun = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return self._running

    def begin(self) -> None:
        """Takes on nothing new from now on."""
        self.begun = True

    def enter(self) -> None:
        """One more request."""
        self._running += 1
        self._idle.clear()

    def leave(self) -> None:
        """One request less."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def idle(self, timeout_s: float) -> bool:
        """Waits until nothing runs, for so long at most. Returns whether nothing does."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class DrainGate:
    """Middleware: counts the requests that are work, and refuses them once a drain has begun.

    Args:
        is_work: tells it by the path.
        refusal: the answer to a path that is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain: Drain,
        is_work: Callable[[str], bool],
        refusal: Callable[[str], Response],
    ) -> None:
        self._app = app
        self._drain = drain
        self._is_work = is_work
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses one request."""
        if scope["type"] != "http" or not self._is_work(scope["path"]):
            await self._app(scope, receive, send)
        elif self._drain.begun:
            await self._refusal(scope["path"])(scope, receive, send)
        else:
            self._drain.enter()
            try:
                await self._app(scope, receive, send)
            finally:
                self._drain.leave()
