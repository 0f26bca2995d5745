"""The events of one stream: what they share is written down once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from fastchat.protocol.openai_api_protocol import SamplingRequest
from fastchat.protocol.worker import Usage


class EventWriter:
    """Writes the events of the answer to one request.

    Attributes:
        tells_usage: whether the client asked for a last event with token counts.
    """

    def __init__(self, answer_id: str, kind: str, request: SamplingRequest) -> None:
        options = request.stream_options
        self.tells_usage = options is not None and options.include_usage
        head = {
            "id": answer_id,
            "object": kind,
            "created": int(time.time()),
            "model": request.model,
        }
        # A stream has hundreds of events: what they share is turned into JSON once.
        self._start = b"data: " + _json(head)[:-1] + b', "choices": ['
        self._end = (b'], "usage": null}' if self.tells_usage else b"]}") + b"\n\n"

    def choice(self, choice: Mapping[str, Any]) -> bytes:
        """An event about one choice."""
        return self._start + _json(choice) + self._end

    def usage(self, usage: Usage) -> bytes:
        """The last event: token counts and no choices."""
        return self._start + b'], "usage": ' + _json(usage) + b"}\n\n"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
