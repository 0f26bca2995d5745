"""GET /metrics: what a process counts, in Prometheus' text format.

Each application has a registry of its own, so that several may live in one process. Names
have the suffixes that vLLM uses, under the prefix `fastchat:`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

PREFIX = "fastchat:"

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""Upper ends of the buckets of a time."""

TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 8000)
"""Upper ends of the buckets of a length."""


class Readings(Collector):
    """Metrics that are read when they are asked for, instead of being kept up to date."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        return self._read()


Samples = Iterable[tuple[Mapping[str, str], float]]
"""Values, each with its labels; all with the same ones."""


def gauge(name: str, what: str, samples: Samples) -> Metric:
    """Readings of something that goes up and down."""
    return _filled(GaugeMetricFamily, name, what, samples)


def counter(name: str, what: str, samples: Samples) -> Metric:
    """Readings of something that only grows."""
    return _filled(CounterMetricFamily, name, what, samples)


def _filled(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, what: str, samples: Samples
) -> Metric:
    listed = list(samples)
    family = kind(PREFIX + name, what, labels=list(listed[0][0]) if listed else [])
    for labels, value in listed:
        family.add_metric(list(labels.values()), value)
    return family


def add_metrics_route(app: FastAPI, registry: CollectorRegistry) -> None:
    """Serves a registry."""

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
