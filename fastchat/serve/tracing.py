"""OpenTelemetry traces, by FastAPI's own spans: which are made, and what else they tell.

A trace goes from the client through the API server to the worker. Nothing of a prompt or an
answer is in it. The names of attributes, which are not final yet, are in this file only.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastchat.errors import SettingsError

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from fastchat.protocol.worker import Usage

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_QUIET = ("/health", "/metrics", "/receive_heart_beat")


def trace_to(endpoint: str | None, service: str) -> None:
    """Sends this process's traces to a collector, as --otlp-endpoint asks; None changes nothing.

    Raises:
        SettingsError: the extra that this needs is not installed.
    """
    if endpoint is not None:
        os.environ[VARIABLE] = endpoint
    if not os.environ.get(VARIABLE):
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        raise SettingsError(
            "Traces need OpenTelemetry's SDK, which is not installed.",
            hint='Install it: pip install "fastchat-yuan2[otel]".',
            param="--otlp-endpoint",
        )


def telemetry() -> TelemetryConfig:
    """What FastAPI is told: spans of requests if there is a collector, and nothing else.

    Its logs are off, for they would hold what clients sent.
    """
    wanted = bool(os.environ.get(VARIABLE))
    return {
        "tracing": wanted,
        "auto_configure": wanted,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "exclude": lambda scope: str(scope.get("path", "")).startswith(_QUIET),
    }


def trace_headers() -> dict[str, str]:
    """The headers by which the next process continues the trace; none where there is none."""
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def describe(operation: str, model: str, usages: Iterable[Usage]) -> None:
    """Adds what was asked of which model, and the tokens, to the span of the request."""
    from opentelemetry import trace

    span = trace.get_current_span()
    if not span.is_recording():
        return
    counted = list(usages)
    span.set_attributes(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": sum(usage["prompt_tokens"] for usage in counted),
            "gen_ai.usage.output_tokens": sum(usage["completion_tokens"] for usage in counted),
        }
    )
