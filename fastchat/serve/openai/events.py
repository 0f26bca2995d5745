"""The events of one stream: what they share is written down once."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from fastchat.protocol.openai_requests import PromptTokensDetails, SamplingRequest, UsageInfo
from fastchat.protocol.worker import Usage
from fastchat.serve.openai.streams import total_usage


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

    def usage(self, usages: Collection[Usage]) -> bytes:
        """The last event: token counts and no choices."""
        told = usage_info(usages).model_dump_json().encode()
        return self._start + b'], "usage": ' + told + b"}\n\n"


def usage_info(usages: Collection[Usage]) -> UsageInfo:
    """The counts of several answers together, as answers and events tell them."""
    total = total_usage(usages)
    return UsageInfo(
        prompt_tokens=total["prompt_tokens"],
        total_tokens=total["total_tokens"],
        completion_tokens=total["completion_tokens"],
        prompt_tokens_details=PromptTokensDetails(cached_tokens=total.get("cached_tokens", 0)),
    )


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
