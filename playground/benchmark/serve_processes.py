"""The processes that `serve.py` and `chaos.py` measure: this project's chain, and a bare one.

Each is started as a process of its own, answers on a free port, and is stopped at the end.

    python playground/benchmark/serve_processes.py echo-worker SECONDS PORT CONTROLLER
    python playground/benchmark/serve_processes.py module NAME FLAGS... PORT CONTROLLER
"""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

_THIS = Path(__file__).resolve()
ROOT = _THIS.parents[2]
TOKENS = 16


class Chain:
    """Child processes with their URLs; leaving the context stops them.

    Attributes:
        url: of the server that clients ask.
        controller, workers: of the others, where there are any.
    """

    def __init__(self, log: Path) -> None:
        self.url = ""
        self.controller = ""
        self.workers: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log = log
        self._open = ExitStack()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes.values():
            process.wait()
        self._open.close()

    def start(
        self,
        name: str,
        command: Sequence[str],
        ready: str,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts a process, and waits until a URL of it answers.

        Args:
            name: of the process and its log.
            command: what follows the Python in the command line.
            ready: the URL.
            python: to run it; any other than this one does not see this project.
            environment: what is set for it alone.
        """
        log = self._open.enter_context((self._log / f"{name}.log").open("ab"))
        variables = {**os.environ, "LOGDIR": "", "OMP_NUM_THREADS": "1", **(environment or {})}
        variables.pop("PYTHONPATH", None)
        if python == sys.executable:
            variables["PYTHONPATH"] = str(ROOT)
        self.processes[name] = subprocess.Popen(
            [python, *command], stdout=log, stderr=log, env=variables, cwd=self._log
        )
        self.wait(ready)

    def wait(self, url: str, timeout_s: float = 120.0) -> None:
        """Returns once a URL answers with anything."""
        deadline = time.monotonic() + timeout_s
        while not answers(url):
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} does not answer; see the logs in {self._log}")
            time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether anything answers 200 at a URL."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port that nothing uses right now."""
    from fastchat.serve.processes import free_ports

    return free_ports(1)[0]


def our_chain(log: Path, worker: Sequence[Sequence[str]], *, dispatch: str = "prefix") -> Chain:
    """Controller, one worker for each command line, API server.

    Args:
        log: where output goes.
        worker: command lines without port and controller, which are added.
        dispatch: how the controller chooses.
    """
    chain = Chain(log)
    port = free_port()
    chain.controller = f"http://127.0.0.1:{port}"
    start_controller(chain, dispatch)
    for number, command in enumerate(worker):
        port = free_port()
        chain.workers.append(f"http://127.0.0.1:{port}")
        chain.start(
            f"worker-{number}",
            [*command, str(port), chain.controller],
            f"{chain.workers[-1]}/health",
        )
    chain.url = f"http://127.0.0.1:{free_port()}"
    start_api(chain)
    return chain


def start_api(chain: Chain) -> None:
    """Starts the API server at the chain's URL, for the first time or again."""
    flags = ["--host", "127.0.0.1", "--port", chain.url.rpartition(":")[2]]
    command = ["-m", "fastchat.serve.openai_api_server", *flags]
    command += ["--controller-address", chain.controller]
    chain.start("api", command, f"{chain.url}/health")


def start_controller(chain: Chain, dispatch: str = "prefix") -> None:
    """Starts the controller at the chain's address, for the first time or again."""
    port = chain.controller.rpartition(":")[2]
    flags = ["--host", "127.0.0.1", "--port", port, "--dispatch-method", dispatch]
    chain.start(
        "controller", ["-m", "fastchat.serve.controller", *flags], f"{chain.controller}/health"
    )


def echo_workers(count: int, delay_s: float = 0.0) -> list[list[str]]:
    """Command lines of workers without a model, which take so long for a token."""
    return [[str(_THIS), "echo-worker", str(delay_s)]] * count


def model_worker(model: str, dtype: str) -> list[str]:
    """Command line of a worker with a model, under the name yuan2."""
    flags = ["--model-path", model, "--dtype", dtype, "--model-names", "yuan2"]
    return [str(_THIS), "module", "fastchat.serve.model_worker", *flags, "--host", "127.0.0.1"]


def bare_chain(log: Path) -> Chain:
    """Two hops that do nothing but pass a stream on: what the libraries themselves cost.

    The path says how many events a stream has.
    """
    chain = Chain(log)
    backends = []
    for number in range(2):
        port = free_port()
        chain.start(
            f"bare-{number}", [str(_THIS), "bare", str(port)], f"http://127.0.0.1:{port}/health"
        )
        backends.append(f"http://127.0.0.1:{port}")
    port = free_port()
    chain.url = f"http://127.0.0.1:{port}"
    chain.start("bare-front", [str(_THIS), "bare", str(port), *backends], f"{chain.url}/health")
    return chain


class _Pause:
    """What a script waits for before each token: only time."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def wait(self) -> None:
        """Lets the time pass."""
        await asyncio.sleep(self._delay_s)


def _echo_worker(delay_s: float, port: str, controller: str) -> None:
    """A worker whose scripted engine answers with sixteen tokens."""
    from fastchat.engine.echo import Script, echo_model
    from fastchat.serve.worker.app import WorkerSettings, create_worker_app

    script = Script(answer=_numbered, gate=cast("Any", _Pause(delay_s)))
    served = echo_model(script, context_length=8192)
    settings = WorkerSettings(
        ["echo"],
        f"http://127.0.0.1:{port}",
        controller,
        queue_limit=100_000,
        stream_interval=1,
    )
    from fastchat.serve.running import bind, run_app

    logging.basicConfig(level=logging.WARNING)
    run_app(create_worker_app(served, settings), bind("127.0.0.1", int(port)), "127.0.0.1")


def _numbered(prompt: str) -> str:
    return prompt[: TOKENS - 1].ljust(TOKENS - 1, ".")


def _module(name: str, *arguments: str) -> None:
    """Runs a worker's entry, whose port and controller come last as `our_chain` gives them."""
    *flags, port, controller = arguments
    sys.argv = [name, *flags, "--port", port, "--controller-address", controller]
    runpy.run_module(name, run_name="__main__")


def _bare(port: str, backends: Sequence[str]) -> None:
    import itertools

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    from fastchat.serve.cluster.connections import Connections

    http = Connections()
    turn = itertools.cycle(backends) if backends else None
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'

    async def own(count: int) -> AsyncGenerator[bytes, None]:
        for _ in range(count):
            await asyncio.sleep(0)
            yield event
        yield b"data: [DONE]\n\n"

    async def passed_on(path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert turn is not None
        asked = http.post(next(turn) + path, body, {}, connect_s=300, silence_s=300)
        async with asked as response:
            async for piece in response.pieces():
                yield piece

    async def answer(request: Request) -> Response:
        body = await request.body()
        count = request.path_params["count"]
        stream = own(count) if turn is None else passed_on(f"/{count}", body)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [Route("/{count:int}", answer, methods=["POST"]), Route("/health", health)]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", backlog=4096)


if __name__ == "__main__":
    from fastchat.entry import run_entry

    match sys.argv[1:]:
        case ["echo-worker", delay_s, port, controller]:
            run_entry(lambda: _echo_worker(float(delay_s), port, controller))
        case ["module", name, *arguments]:
            _module(name, *arguments)
        case ["bare", port, *backends]:
            _bare(port, backends)
        case _:
            raise SystemExit(__doc__)
