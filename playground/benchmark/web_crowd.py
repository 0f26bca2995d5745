"""The web page as a program speaks to it: many visitors without a browser for each."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True, slots=True)
class Received:
    """What a visitor got of an answer.

    Attributes:
        first_s: from the question to the first text.
        tokens_per_s: after the first text, as it arrived.
    """

    first_s: float
    tokens_per_s: float


class CrowdedPage:
    """The page, for visitors that are told apart by a name."""

    def __init__(self, http: httpx2.AsyncClient, url: str, config: dict[str, Any]) -> None:
        self._http = http
        self._url = url
        names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
        self._events = {
            (names.get(target), event): each["id"]
            for each in config["dependencies"]
            for target, event in each["targets"]
        }
        (loaded,) = (
            each["id"]
            for each in config["dependencies"]
            if any(event == "load" for _, event in each["targets"])
        )
        self._arrival = [loaded] + [
            each["id"] for each in config["dependencies"] if each["trigger_after"] == loaded
        ]
        self._inputs = {each["id"]: len(each["inputs"]) for each in config["dependencies"]}

    async def _at_once(self, visitor: str, event: int, data: list[Any]) -> None:
        body = {"data": data, "fn_index": event, "session_hash": visitor}
        answer = await self._http.post(f"{self._url}/gradio_api/run/predict", json=body)
        answer.raise_for_status()

    async def arrive(self, visitor: str) -> None:
        """Opens the page: its models become known to it."""
        for event in self._arrival:
            given = ["crowd", "en", "en", ""] if event != self._arrival[0] else ["crowd", "en"]
            await self._at_once(visitor, event, [*given][: self._inputs[event]])

    async def ask(self, visitor: str, text: str) -> Received:
        """Sends a message and receives the answer, which has a token for each byte."""
        said = {"text": text, "files": []}
        data = ["crowd", said, None, "en", "echo", "", 0.7, 1.0, 1024, 1.0]
        began, first, last = time.perf_counter(), 0.0, 0.0
        letters = 0
        async for told in self._told(visitor, self._events["chat-box", "submit"], data):
            now = time.perf_counter()
            if "答" in told and not first:
                first = now
            elif first and "tokens/s" not in told:
                letters += told.count("x")
                last = now
        if not first:
            raise RuntimeError(f"{visitor} got no answer")
        return Received(first - began, letters / (last - first) if last > first else 0.0)

    async def _told(self, visitor: str, event: int, data: list[Any]) -> AsyncGenerator[str, None]:
        body = {"data": data, "fn_index": event, "session_hash": visitor}
        answer = await self._http.post(f"{self._url}/gradio_api/queue/join", json=body)
        answer.raise_for_status()
        stream = f"{self._url}/gradio_api/queue/data?session_hash={visitor}"
        async with self._http.stream("GET", stream) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                event_told = json.loads(line.removeprefix("data:"))
                yield json.dumps(event_told.get("output", ""), ensure_ascii=False)
                if event_told["msg"] == "process_completed":
                    return
