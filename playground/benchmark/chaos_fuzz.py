"""Requests that no client should send, and what a chain makes of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serve_processes import Chain

_CHAT = "/v1/chat/completions"
_DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 413, 422, 429, 499, 502, 503, 504}
_AT_ONCE = 50
_WARM = 1000
_MOST_GROWTH = 0.05
_PATIENCE_S = 60


async def fuzz(chain: Chain, count: int) -> int:
    """Sends so many; returns how many were not treated as they should be.

    Each has to be answered in time, with a documented status that is no 500. From the
    thousandth on, memory has to stay within 5 % where there are ten times as many.
    """
    chance = random.Random(7)
    statuses: Counter[int] = Counter()
    before: Mapping[str, int] = {}
    for start in range(0, count, _AT_ONCE):
        if not before and start >= min(_WARM, count // 2):
            before = _memory(chain)
        sent = [hostile(chance) for _ in range(_AT_ONCE)]
        statuses.update(await asyncio.gather(*(_raw(chain.url, *each) for each in sent)))
    after = _memory(chain)
    grown = {name: after[name] / before[name] - 1 for name in before}
    told = ", ".join(f"{name} {share:+.1%}" for name, share in grown.items())
    print(f"{count} hostile requests: {dict(sorted(statuses.items()))}; memory {told}")
    judged = grown.values() if count >= 10 * _WARM else ()
    return sum(n for status, n in statuses.items() if status not in _DOCUMENTED) + sum(
        share > _MOST_GROWTH for share in judged
    )


_PATHS: tuple[tuple[str, dict[str, Any]], ...] = (
    (_CHAT, {"messages": [{"role": "user", "content": "tell me"}]}),
    ("/v1/completions", {"prompt": "tell me"}),
    ("/v1/embeddings", {"input": "tell me"}),
    ("/v1/responses", {"input": "tell me"}),
    ("/tokenize", {"prompt": "tell me"}),
    ("/detokenize", {"tokens": [97]}),
)
_NAMES = (
    *("n", "stop", "temperature", "top_p", "max_tokens", "logit_bias", "tools", "seed", "x"),
    *("response_format", "tool_choice", "messages", "prompt", "input", "stream_options", "user"),
)
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**70, 1e400, float("nan"), "", "\ud800", "你" * 50),
    *([], {}, [[[]]], {"a": []}, [{"role": "user"}], [{"role": 7, "content": [[]]}]),
)


def hostile(chance: random.Random) -> tuple[str, bytes]:
    """A path and a body: odd values in known fields, JSON that breaks off, mere bytes."""
    path, field = chance.choice(_PATHS)
    fields: dict[str, Any] = {"model": "echo", **field}
    if path in (_CHAT, "/v1/completions", "/v1/responses"):
        fields["stream"] = chance.random() < 0.3
    for _ in range(chance.randrange(4)):
        fields[chance.choice((*fields, *_NAMES))] = chance.choice(_ODD)
    data = json.dumps(fields).encode()
    match chance.randrange(12):
        case 0:
            return path, data[: chance.randrange(len(data))]
        case 1:
            return path, chance.randbytes(chance.randrange(200))
        case 2:
            return path, b"[" * chance.randrange(5000)
        case 3:
            at = chance.randrange(len(data))
            return path, data[:at] + chance.randbytes(1) + data[at + 1 :]
        case 4:
            return path, json.dumps({**fields, "user": "x" * chance.randrange(1 << 16)}).encode()
        case _:
            return path, data


async def _raw(url: str, path: str, data: bytes) -> int:
    """The status of an answer; 0 if there is none in time."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + data)
            text = await reader.read(-1)
            writer.close()
            return int(text.split()[1])
    except (TimeoutError, OSError, IndexError, ValueError):
        return 0


def _memory(chain: Chain) -> dict[str, int]:
    """Bytes that each process holds."""
    found = {}
    for name, process in chain.processes.items():
        if process.poll() is None:
            pages = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]
            found[name] = int(pages) * os.sysconf("SC_PAGE_SIZE")
    return found
