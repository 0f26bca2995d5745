"""What the API server counts: requests by route and status, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.serve.metrics import PREFIX, SECONDS, Readings, gauge
from fastchat.serve.streaming import CLIENT_GONE_STATUS


class ApiMetrics:
    """The metrics of one API server; an own registry.

    Args:
        running: requests that are being answered.
    """

    def __init__(self, running: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(
            Readings(
                lambda: [
                    gauge("http_requests_running", "Requests being answered.", [({}, running())])
                ]
            )
        )
        self.requests = Counter(
            PREFIX + "http_requests",
            "Requests by what came of them; 499 is a client that left.",
            ("route", "status"),
            registry=self.registry,
        )
        self.times = Histogram(
            PREFIX + "http_request_duration_seconds",
            "From a request to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )


class Measured:
    """Middleware that counts requests by the route that answered them."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), CLIENT_GONE_STATUS

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            # Paths that lead nowhere are one label, however many there are.
            route = getattr(scope.get("route"), "path", "other")
            gone = scope.get("state", {}).get("client_gone")
            told = str(CLIENT_GONE_STATUS if gone else status)
            self._metrics.requests.labels(route, told).inc()
            self._metrics.times.labels(route).observe(time.monotonic() - began)
