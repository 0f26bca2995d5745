"""A client that opens many streams at once and costs little itself. Knows HTTP and SSE, no server.

A request is one POST whose answer is read to its end; pieces of text are told apart as they come.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(slots=True)
class Answer:
    """What came of one request: seconds on one clock from its start.

    Attributes:
        first_s: until the first text.
        whole_s: until the end.
        text: all of it.
        finish: the reason that the stream gave for its end.
        failure: why there is no complete answer; "" if there is one.
        told: whether the stream said that it failed, or was ended properly.
    """

    first_s: float = 0.0
    whole_s: float = 0.0
    text: str = ""
    finish: str = ""
    status: int = 0
    failure: str = ""
    told: bool = False


@dataclass(slots=True)
class Load:
    """All answers of one run."""

    answers: list[Answer] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def complete(self) -> list[Answer]:
        """Those that came to their end."""
        return [answer for answer in self.answers if not answer.failure]

    def median_first_s(self) -> float:
        """Median time to the first text."""
        return statistics.median(answer.first_s for answer in self.complete)

    def median_whole_s(self) -> float:
        """Median time to the end."""
        return statistics.median(answer.whole_s for answer in self.complete)

    def per_second(self) -> float:
        """Complete answers a second."""
        return len(self.complete) / self.wall_s

    def spread(self, asked: int = 1) -> float:
        """How far the times that clients took are from the median, as a share of it.

        A client's time is that of all of its requests; 98 % of the clients are within.

        Args:
            asked: requests of each client, which follow each other in `answers`.
        """
        whole = [answer.whole_s for answer in self.answers]
        times = sorted(sum(whole[at : at + asked]) for at in range(0, len(whole), asked))
        middle, last = statistics.median(times), len(times) - 1
        low, high = times[round(0.01 * last)], times[round(0.99 * last)]
        return max(middle - low, high - middle) / middle


async def ask(url: str, body: dict[str, Any], patience_s: float = 300.0) -> Answer:
    """Sends one request and reads its answer, whatever becomes of it."""
    answer = Answer()
    began = time.perf_counter()
    try:
        await asyncio.wait_for(_ask(url, body, answer, began), patience_s)
    except TimeoutError:
        answer.failure = "hangs"
    except (OSError, EOFError, ValueError) as error:
        answer.failure = answer.failure or f"{type(error).__name__}: {error}"
    answer.whole_s = time.perf_counter() - began
    return answer


async def _ask(url: str, body: dict[str, Any], answer: Answer, began: float) -> None:
    parts = urlsplit(url)
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        answer.status = int(lines[0].split()[1])
        chunked = any(line.lower() == b"transfer-encoding: chunked" for line in lines)
        rest = b""
        while True:
            data = await _piece(reader) if chunked else await reader.read(65536)
            if not data:
                break
            if answer.status != 200:
                rest += data
                continue
            *events, rest = (rest + data).split(b"\n")
            for line in events:
                _take(line, answer, began)
        if answer.status != 200:
            answer.failure, answer.told = f"HTTP {answer.status}: {rest[:200]!r}", True
        elif not answer.told:
            answer.failure = "ended without a word"
    finally:
        writer.close()


async def _piece(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    data = await reader.readexactly(size + 2)
    return data[:-2]


def _take(line: bytes, answer: Answer, began: float) -> None:
    if not line.startswith(b"data:"):
        return
    text = line[5:].strip()
    if text == b"[DONE]":
        answer.told = True
        return
    event = json.loads(text)
    if event.get("error") or event.get("error_code"):
        answer.failure, answer.told = json.dumps(event)[:200], True
        return
    for choice in event.get("choices", ()):
        new = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        if new and not answer.text:
            answer.first_s = time.perf_counter() - began
        answer.text += new
        answer.finish = choice.get("finish_reason") or answer.finish


async def load(url: str, bodies: Sequence[dict[str, Any]], times: int = 1) -> Load:
    """One client for each body, all at once; each sends it so many times, one after the other."""
    began = time.perf_counter()

    async def client(body: dict[str, Any]) -> list[Answer]:
        return [await ask(url, body) for _ in range(times)]

    found = await asyncio.gather(*map(client, bodies))
    answers = [answer for answers in found for answer in answers]
    return Load(answers, time.perf_counter() - began)


async def one_by_one(url: str, bodies: Sequence[dict[str, Any]]) -> Load:
    """Sends requests one after the other."""
    began = time.perf_counter()
    answers = [await ask(url, body) for body in bodies]
    return Load(answers, time.perf_counter() - began)
