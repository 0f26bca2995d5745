"""What clients notice when the processes that serve them fail, and what a hostile client can do.

    python playground/benchmark/chaos.py             all of it
    python playground/benchmark/chaos.py kill fuzz   some of it

A chain of real processes with scripted engines. Prints one line a fault with what happened to the
requests; the exit status is 1 if one hung, broke off without a word, or was answered with an
undocumented status.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos_fuzz import fuzz
from serve_load import Answer, ask
from serve_processes import Chain, echo_workers, our_chain, start_api, start_controller

_CHAT = "/v1/chat/completions"
_DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 413, 422, 429, 499, 500, 502, 503, 504}
_DELAY_S = 0.1
_JSON = "Host: x\r\nContent-Type: application/json\r\n"


def body(number: int = 0, **more: Any) -> dict[str, Any]:
    """A streamed chat request."""
    messages = [{"role": "user", "content": f"{number:06d} and more of it"}]
    return {"model": "echo", "messages": messages, "stream": True, **more}


def outcomes(answers: list[Answer]) -> str:
    """How requests ended, in a few words."""
    found = Counter(
        "complete"
        if not answer.failure
        else ("told of an error" if answer.told else answer.failure)
        for answer in answers
    )
    return ", ".join(f"{count} {what}" for what, count in found.most_common())


def silent(answers: list[Answer]) -> int:
    """Requests that hung or broke off without a word."""
    return sum(bool(answer.failure) and not answer.told for answer in answers)


async def kill(chain: Chain) -> int:
    """A worker is killed with 32 streams; half of them on it."""
    running = [asyncio.create_task(ask(chain.url + _CHAT, body(n))) for n in range(32)]
    await asyncio.sleep(8 * _DELAY_S)
    killed = time.perf_counter()
    chain.processes["worker-0"].kill()
    late = [asyncio.create_task(ask(chain.url + _CHAT, body(100 + n))) for n in range(32)]
    await asyncio.sleep(0)
    answers = list(await asyncio.gather(*running))
    ended = max((a.whole_s for a in answers if a.failure), default=0.0) - 8 * _DELAY_S
    fresh = list(await asyncio.gather(*late))
    print(f"kill -9 of a worker: with output: {outcomes(answers)}, the last {ended:.2f} s later;")
    print(f"  asked at that moment: {outcomes(fresh)} ({time.perf_counter() - killed:.1f} s)")
    return silent(answers) + sum(bool(answer.failure) for answer in fresh)


async def drain(chain: Chain) -> int:
    """A worker is asked to end with 32 streams; none of them is lost, and it ends."""
    running = [asyncio.create_task(ask(chain.url + _CHAT, body(n))) for n in range(32)]
    await asyncio.sleep(4 * _DELAY_S)
    process = chain.processes["worker-0"]
    process.terminate()
    late = [asyncio.create_task(ask(chain.url + _CHAT, body(100 + n))) for n in range(32)]
    answers = list(await asyncio.gather(*running, *late))
    status = await asyncio.to_thread(process.wait, 30)
    print(f"TERM to a worker: {outcomes(answers)}; it ended with status {status}")
    return sum(bool(answer.failure) for answer in answers) + bool(status)


async def controller(chain: Chain) -> int:
    """The controller is killed and restarted while requests come in."""
    began = time.perf_counter()
    asked: list[tuple[float, Answer]] = []
    stop = asyncio.Event()

    async def go_on() -> None:
        number = 0
        works = []
        while not stop.is_set():
            at = time.perf_counter() - began

            async def one(at: float = at, number: int = number) -> None:
                asked.append((at, await ask(chain.url + _CHAT, body(number))))

            works.append(asyncio.create_task(one()))
            number += 1
            await asyncio.sleep(0.05)
        await asyncio.gather(*works)

    going = asyncio.create_task(go_on())
    await asyncio.sleep(1)
    chain.processes["controller"].kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(start_controller, chain)
    back = time.perf_counter() - began
    await asyncio.sleep(4)
    stop.set()
    await going
    failed = [at for at, answer in asked if answer.failure]
    last = max(failed, default=0.0)
    told = outcomes([answer for _, answer in asked])
    print(
        f"controller restarted under load: {len(asked)} requests, {told};"
        f" the last failure {max(0.0, last - back):.2f} s after it was back"
    )
    return sum(bool(answer.failure) for _, answer in asked)


async def api(chain: Chain) -> int:
    """The API server is asked to end under load and started again; then it is killed instead."""
    bad = 0
    for name, number in (("TERM", signal.SIGTERM), ("KILL", signal.SIGKILL)):
        running = [asyncio.create_task(ask(chain.url + _CHAT, body(n))) for n in range(32)]
        await asyncio.sleep(4 * _DELAY_S)
        process = chain.processes["api"]
        process.send_signal(number)
        await asyncio.to_thread(process.wait, 30)
        answers = list(await asyncio.gather(*running))
        held = await _until(lambda: _running(chain) == 0, 10)
        began = time.perf_counter()
        await asyncio.to_thread(start_api, chain)
        back_s = time.perf_counter() - began
        fresh = list(await asyncio.gather(*(ask(chain.url + _CHAT, body(n)) for n in range(32))))
        print(
            f"{name} to the API server: {outcomes(answers)}; {held} requests still held;"
            f" back in {back_s:.1f} s: {outcomes(fresh)}"
        )
        lost = sum(bool(answer.failure) for answer in answers) if name == "TERM" else 0
        bad += lost + held + sum(bool(answer.failure) for answer in fresh)
    return bad


async def stopped(chain: Chain) -> int:
    """A worker is stopped for ten seconds and goes on."""
    running = [asyncio.create_task(ask(chain.url + _CHAT, body(n))) for n in range(16)]
    await asyncio.sleep(4 * _DELAY_S)
    process = chain.processes["worker-1"]
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(10)
    process.send_signal(signal.SIGCONT)
    answers = list(await asyncio.gather(*running))
    print(f"a worker stopped for 10 s: {outcomes(answers)}")
    return sum(bool(answer.failure) for answer in answers)


async def leaving(chain: Chain) -> int:
    """A thousand clients connect, ask and leave at once."""
    parts = urlsplit(chain.url)

    async def leave(number: int) -> None:
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        data = json.dumps(body(number)).encode()
        head = f"POST {_CHAT} HTTP/1.1\r\n{_JSON}Content-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        await asyncio.sleep(random.random() * 0.2)
        writer.close()

    for start in range(0, 1000, 100):
        await asyncio.gather(*(leave(start + n) for n in range(100)))
    held = await _until(lambda: _running(chain) == 0, 30)
    answer = await ask(chain.url + _CHAT, body())
    print(
        f"1000 clients that leave: {held} requests still held; the next one: {outcomes([answer])}"
    )
    return held + bool(answer.failure)


async def slow(chain: Chain) -> int:
    """Clients that read nothing for two seconds get the whole answer all the same."""
    parts = urlsplit(chain.url)

    async def read_late(number: int) -> bool:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1024)
        data = json.dumps(body(number)).encode()
        head = f"POST {_CHAT} HTTP/1.1\r\n{_JSON}Content-Length: {len(data)}\r\n"
        writer.write((head + "Connection: close\r\n\r\n").encode() + data)
        await asyncio.sleep(2)
        text = await reader.read(-1)
        writer.close()
        return b"[DONE]" in text

    whole = await asyncio.gather(*(read_late(number) for number in range(50)))
    print(f"slow readers: {sum(whole)} of {len(whole)} answers are complete")
    return len(whole) - sum(whole)


async def hostile(chain: Chain, count: int) -> int:
    """Hostile and random requests: every one is answered, and leaves nothing behind."""
    bad = await fuzz(chain, count)
    answer = await ask(chain.url + _CHAT, body())
    return bad + await _until(lambda: _running(chain) == 0, 10) + bool(answer.failure)


def _running(chain: Chain) -> int:
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    total = 0
    for number, worker in enumerate(chain.workers):
        if chain.processes[f"worker-{number}"].poll() is None:
            with opener.open(f"{worker}/health", timeout=5) as answer:
                state = json.load(answer)
                total += state["running"] + state["waiting"]
    return total


async def _until(reached: Callable[[], bool], patience_s: float) -> int:
    """0 once it is so, 1 if it never is."""
    deadline = time.perf_counter() + patience_s
    while time.perf_counter() < deadline:
        if await asyncio.to_thread(reached):
            return 0
        await asyncio.sleep(0.1)
    return 1


def main() -> int:
    """Runs the faults one after the other, each on what is left of the chain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("controller", "api", "leaving", "slow", "stopped", "drain", "fuzz", "kill")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(names))
    parser.add_argument("--fuzz-requests", type=int, default=10_000)
    args = parser.parse_args()
    faults: dict[str, Callable[[Chain], Awaitable[int]]] = {
        "controller": controller,
        "api": api,
        "leaving": leaving,
        "slow": slow,
        "stopped": stopped,
        "drain": drain,
        "fuzz": lambda chain: hostile(chain, args.fuzz_requests),
        "kill": kill,
    }
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in args.faults or names:
            with our_chain(Path(folder), echo_workers(2, _DELAY_S)) as chain:
                bad += asyncio.run(faults[name](chain))  # type: ignore[arg-type]
    print(
        "all as it should be" if not bad else f"{bad} requests were not treated as they should be"
    )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
