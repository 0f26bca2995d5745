"""What share of their prompts two workers know already, against one worker: is a chat sent home?"""

from __future__ import annotations

import argparse
import asyncio
import re
import urllib.request
from pathlib import Path
from typing import Any

from serve_load import ask
from serve_processes import Chain, model_worker, our_chain
from serve_report import CHAT

_TOKENS = 32
_AT_ONCE = 8
_COUNT = re.compile(r"^fastchat:prefix_cache_(queries|hits)_total(?:{.*})? (\S+)$", re.MULTILINE)


def prefix(args: argparse.Namespace, log: Path) -> None:
    """Chats of several turns, over one worker and over two."""
    from engine_models import checkpoint

    worker = model_worker(args.model or str(checkpoint("T")), args.dtype)
    shares = {}
    for count in (1, 2):
        with our_chain(log, [worker] * count) as chain:
            asyncio.run(_chats(chain, args.chats, args.turns))
            shares[count] = _share(chain)
        told = f"{args.chats} chats of {args.turns} turns, workers: {count}"
        print(f"{told:<44}{shares[count]:>12.3f} of the prompts' tokens were known", flush=True)
    print(f"{'two workers / one':<44}{shares[2] / shares[1]:>12.3f} (target: at least 0.9)")


async def _chats(chain: Chain, count: int, turns: int) -> None:
    """Each chat asks on when it has been answered; so many go on at once."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        messages: list[dict[str, str]] = []
        for turn in range(turns):
            question = f"{number:03d} asks for the {turn}. time: " + "tell me more of it. " * 5
            messages.append({"role": "user", "content": question})
            body: dict[str, Any] = {"model": "yuan2", "messages": messages, "stream": True}
            body |= {"max_tokens": _TOKENS, "temperature": 0, "ignore_eos": True}
            async with room:
                answer = await ask(chain.url + CHAT, body)
            if answer.failure:
                raise SystemExit(f"chat {number}, turn {turn}: {answer.failure}")
            messages.append({"role": "assistant", "content": answer.text})

    await asyncio.gather(*(one(number) for number in range(count)))


def _share(chain: Chain) -> float:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    counts = {"queries": 0.0, "hits": 0.0}
    for worker in chain.workers:
        with opener.open(f"{worker}/metrics", timeout=10) as answer:
            for name, value in _COUNT.findall(answer.read().decode()):
                counts[name] += float(value)
    return counts["hits"] / counts["queries"]
