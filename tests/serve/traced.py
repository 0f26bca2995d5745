"""Asks a traced chain once, and prints the spans that a collector was sent; run as a process."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.requests import Request
from starlette.responses import Response

from tests.serve.harness import PATIENCE_S, LiveServer, StackMaker

spans = []
complete = threading.Event()


async def collector(scope, receive, send):
    if scope["type"] != "http":
        return
    request = ExportTraceServiceRequest()
    request.ParseFromString(await Request(scope, receive).body())
    for resource in request.resource_spans:
        for group in resource.scope_spans:
            for span in group.spans:
                attributes = {
                    a.key: a.value.string_value or a.value.int_value for a in span.attributes
                }
                spans.append((span.name, span.trace_id.hex(), attributes))
    if len({name for name, _, _ in spans}) >= 3:
        complete.set()
    await Response()(scope, receive, send)


with LiveServer(lambda _: collector) as server:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.url
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"
    with ExitStack() as running:
        maker = StackMaker(running)
        stack = maker()
        body = {"model": "echo", "messages": [{"role": "user", "content": "top secret"}]}
        trace = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        assert stack.post("/v1/chat/completions", body, headers=trace).status_code == 200
        assert complete.wait(PATIENCE_S), spans
        maker.stop_all_soon()
print(json.dumps(spans))
