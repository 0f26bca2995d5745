"""What the web page adds to a stream, and whether many chats share it fairly.

    python playground/benchmark/web.py [--chats 30] [--json]

The model is an echo that writes a token every 20 ms, in processes of its own, so that the page
is what is measured. Told are: the first text on the page after the first text of the API, both in
ms; the slowest of many chats' tokens/s over one chat's alone; the reaction to a click while many
chats stream; and the time to take a new turn at turn 200 over that at turn 10.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2

from fastchat.serve.processes import Service, Services, free_ports
from fastchat.serve.talking.answer import Question, Sampling
from fastchat.serve.talking.backend import ask
from fastchat.serve.talking.cluster import ClusterBackend

PACE_S = 0.02
READY_S = 120.0
ROUNDS = 9


class Page:
    """The page as a browser speaks to it."""

    def __init__(self, http: httpx2.AsyncClient, url: str, config: dict[str, Any]) -> None:
        self._http = http
        self._url = url
        names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
        self._events = {
            (names.get(target), event): each["id"]
            for each in config["dependencies"]
            for target, event in each["targets"]
        }

    async def events(
        self, session: str, what: tuple[str, str], data: list[Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Triggers an event, and yields what the page tells of it."""
        body = {"data": data, "fn_index": self._events[what], "session_hash": session}
        answer = await self._http.post(f"{self._url}/gradio_api/queue/join", json=body)
        answer.raise_for_status()
        stream = f"{self._url}/gradio_api/queue/data?session_hash={session}"
        async with self._http.stream("GET", stream) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    yield event
                    if event["msg"] == "process_completed":
                        return

    async def ask(self, session: str, text: str) -> tuple[float, str]:
        """Seconds to the first text of the answer, and the figures under it."""
        said = {"text": text, "files": []}
        data = [session, said, None, "en", "echo", "", 0.7, 1.0, 1024, 1.0]
        began, first, last = time.perf_counter(), None, ""
        async for event in self.events(session, ("chat-box", "submit"), data):
            told = json.dumps(event.get("output", ""), ensure_ascii=False)
            if first is None and "答" in told:
                first = time.perf_counter() - began
            if "tokens/s" in told:
                last = told[told.rindex("figures") :]
        assert first is not None
        return first, last

    async def click(self, session: str) -> float:
        """Seconds from a click to the page's reaction."""
        began = time.perf_counter()
        body = {
            "data": [None, "en"],
            "fn_index": self._events["chat-chat", "undo"],
            "session_hash": session,
        }
        answer = await self._http.post(f"{self._url}/gradio_api/run/predict", json=body)
        answer.raise_for_status()
        return time.perf_counter() - began


def speed_of(figures: str) -> float:
    """The tokens/s in a line of figures."""
    return float(figures.partition(" tokens/s")[0].rpartition(" ")[2])


async def first_of_api(controller: str) -> float:
    """Seconds to the first text of an answer, asked for without a page."""
    backend = ClusterBackend(controller)
    messages = [{"role": "user", "content": "hi"}]
    question = Question("echo", messages, Sampling(max_new_tokens=8), "req-benchmark")
    async for answer in ask(backend, question, time.perf_counter):
        if answer.first_token_s is not None:
            await backend.close()
            return answer.first_token_s
    raise AssertionError


async def measure(url: str, controller: str, chats: int) -> dict[str, float]:
    """All figures."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=120, trust_env=False, limits=limits) as http:
        page = Page(http, url, (await http.get(url + "/config")).json())
        await page.ask("warm", "hi")
        firsts, plain = [], []
        for number in range(ROUNDS):
            plain.append(await first_of_api(controller))
            firsts.append((await page.ask(f"first{number}", "hi"))[0])
        alone = speed_of((await page.ask("alone", "x" * 150))[1])
        many = [asyncio.create_task(page.ask(f"many{n}", "x" * 150)) for n in range(chats)]
        clicks = []
        while not all(each.done() for each in many):
            clicks.append(await page.click(f"clicker{len(clicks)}"))
            await asyncio.sleep(0.1)
        speeds = [speed_of((await each)[1]) for each in many]
        turns = []
        for _ in range(200):
            began = time.perf_counter()
            await page.ask("long", "h")
            turns.append(time.perf_counter() - began)
    return {
        "first_text_api_ms": 1000 * statistics.median(plain),
        "first_text_page_ms": 1000 * statistics.median(firsts),
        "slowest_of_many_over_alone": min(speeds) / alone,
        "click_median_ms": 1000 * statistics.median(clicks),
        "click_worst_ms": 1000 * max(clicks),
        "turn_200_over_turn_10": statistics.median(turns[-5:]) / statistics.median(turns[7:12]),
    }


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=30, help="chats at the same time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_echo(*args.serve)
        return
    with tempfile.TemporaryDirectory() as folder, Services(Path(folder)) as services:
        url, controller = start(services, Path(folder))
        figures = asyncio.run(measure(url, controller, args.chats))
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<28} {value:8.2f}")


def start(services: Services, folder: Path) -> tuple[str, str]:
    """Starts a controller, an echo and the page; the page's URL and the controller's."""
    controller_port, worker_port, page_port = free_ports(3)
    controller = f"http://127.0.0.1:{controller_port}"
    local = ["--host", "127.0.0.1", "--port"]
    flags = [*local, str(page_port), "--controller-url", controller, "--limit-turns", "1000"]
    flags += ["--history-file", str(folder / "history"), "--concurrency-count", "100"]
    for service in (
        Service(
            "controller",
            "fastchat.serve.controller",
            [*local, str(controller_port)],
            controller + "/health",
        ),
        Service(
            "echo",
            "playground.benchmark.web",
            ["--serve", str(worker_port), str(controller_port)],
            f"http://127.0.0.1:{worker_port}/health",
        ),
        Service(
            "page",
            "fastchat.serve.gradio_web_server",
            flags,
            f"http://127.0.0.1:{page_port}/config",
        ),
    ):
        services.start(
            Service(service.name, service.module, service.flags, service.ready_url, {"LOGDIR": ""})
        )
    services.wait_until_ready(READY_S)
    return f"http://127.0.0.1:{page_port}", controller


def serve_echo(port: int, controller_port: int) -> None:
    """Runs a worker whose model writes what it was asked, a token at a time."""
    from fastchat.engine.echo import Script, echo_model
    from fastchat.serve.running import bind, run_app
    from fastchat.serve.worker.app import WorkerSettings, create_worker_app

    class Pace(asyncio.Event):
        async def wait(self) -> bool:  # type: ignore[override]
            await asyncio.sleep(PACE_S)
            return True

    script = Script(answer=lambda prompt: "答" + prompt[-150:], gate=Pace())
    settings = WorkerSettings(
        worker_address=f"http://127.0.0.1:{port}",
        model_names=["echo"],
        controller_address=f"http://127.0.0.1:{controller_port}",
        limit_worker_concurrency=100,
    )
    served = echo_model(script, context_length=10**6)
    run_app(create_worker_app(served, settings), bind("127.0.0.1", port), "127.0.0.1")


if __name__ == "__main__":
    sys.exit(main())
