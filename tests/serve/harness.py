"""Real servers for tests: uvicorn on a free port, in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import httpx2
import openai
import uvicorn
from starlette.types import ASGIApp

from fastchat.engine.echo import EchoEngine, Script, echo_model
from fastchat.engine.served import ServedModel
from fastchat.protocol.worker import RegisterWorker
from fastchat.serve.cluster.app import Controller, ControllerSettings, create_controller_app
from fastchat.serve.openai.app import create_openai_app
from fastchat.serve.openai.settings import AppSettings
from fastchat.serve.running import bind
from fastchat.serve.worker.app import WorkerSettings, create_worker_app
from fastchat.serve.worker.registrar import Pace

PATIENCE_S = 20.0


@cache
def tls() -> ssl.SSLContext:
    """Trusted certificates, which take as long to read as a test takes."""
    return httpx2.create_ssl_context()


class ReservedPort:
    """A port on which nobody listens yet."""

    def __init__(self, port: int = 0) -> None:
        self.socket = bind("127.0.0.1", port)[0]
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"


class LiveServer:
    """An application behind a real socket.

    Attributes:
        url: where it answers.
        loop: the event loop it runs on.
        app: the application.
    """

    def __init__(
        self, make_app: Callable[[str], ASGIApp], reserved: ReservedPort | None = None
    ) -> None:
        reserved = reserved or ReservedPort()
        self._socket = reserved.socket
        self._socket.listen()
        self.url = reserved.url
        self.loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()
        self.app = make_app(self.url)
        config = uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=1)
        self._server = _Server(config, self._started)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def _started(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ready.set()

    def __enter__(self) -> LiveServer:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S), "the server did not start"
        return self

    def stop_soon(self) -> None:
        self._server.should_exit = True

    def __exit__(self, *_: object) -> None:
        self.stop_soon()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def drain(self) -> Future[Any]:
        """Begins to drain the application; done when it has nothing to do."""
        return asyncio.run_coroutine_threadsafe(self.app.state.drain(), self.loop)

    def call(self, function: Callable[[], Any]) -> None:
        """Runs a function on the server's event loop."""
        self.loop.call_soon_threadsafe(function)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._on_started()


class WatchedController(Controller):
    """Tells a thread when a worker has registered."""

    def __init__(self, settings: ControllerSettings | None = None, **more: Any) -> None:
        super().__init__(settings or ControllerSettings(), **more)
        self.registered = threading.Semaphore(0)

    async def register(self, message: RegisterWorker) -> None:
        await super().register(message)
        self.registered.release()

    def await_worker(self) -> None:
        assert self.registered.acquire(timeout=PATIENCE_S), "no worker registered"


class WatchedEngine(EchoEngine):
    """Tells a thread when a request has started and when it has been given up."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.starts = threading.Semaphore(0)
        self.ends = threading.Semaphore(0)

    async def generate(self, request: Any) -> Any:
        self.starts.release()
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.ends.release()


def post(url: str, body: Any = None, **more: Any) -> httpx2.Response:
    """Posts JSON, past any proxy."""
    with httpx2.Client(verify=tls(), timeout=PATIENCE_S, trust_env=False) as client:
        return client.post(url, json=body, **more)


def get(url: str) -> httpx2.Response:
    """Gets a page, past any proxy."""
    with httpx2.Client(verify=tls(), timeout=PATIENCE_S, trust_env=False) as client:
        return client.get(url)


@contextmanager
def left_behind(server: LiveServer, path: str, body: Any, **headers: str) -> Iterator[None]:
    """Sends a request, and leaves without an answer at the end of the block."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    fields = {"Content-Type": "application/json", **headers}
    connection.request("POST", path, json.dumps(body), fields)
    try:
        yield
    finally:
        connection.close()


def until(condition: Callable[[], bool]) -> None:
    """Asks again and again until it is so; for states that a server reaches by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"


QUICK = Pace(heart_beat_s=0.05, retry_s=0.02, first_delay_s=0.02, longest_delay_s=0.05)


@dataclass
class Stack:
    """A controller, one worker and an API server."""

    served: ServedModel
    engine: WatchedEngine
    controller: WatchedController
    controller_server: LiveServer
    worker_server: LiveServer
    api_server: LiveServer
    settings: AppSettings
    model: str = "echo"
    closing: list[Any] = field(default_factory=list)

    @cached_property
    def client(self) -> openai.OpenAI:
        """A client of the real SDK, without retries."""
        key = self.settings.api_keys[0] if self.settings.api_keys else "EMPTY"
        client = openai.OpenAI(
            api_key=key,
            base_url=self.api_server.url + "/v1",
            max_retries=0,
            http_client=httpx2.Client(verify=tls(), timeout=PATIENCE_S, trust_env=False),
        )
        self.closing.append(client)
        return client

    def close(self) -> None:
        for client in self.closing:
            client.close()

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        """A raw request to the API server."""
        return post(self.api_server.url + path, body, **more)


def make_served(script: Script | None = None, **more: Any) -> tuple[ServedModel, WatchedEngine]:
    """An echo model whose engine can be watched."""
    context_length = more.pop("context_length", 1024)
    served = echo_model(script, **more)
    engine = WatchedEngine(served.codec, script, context_length=context_length)
    return replace(served, engine=engine), engine


class StackMaker:
    """Starts stacks; they run until `running` is closed."""

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self._servers: list[LiveServer] = []

    def serve(
        self, make_app: Callable[[str], ASGIApp], reserved: ReservedPort | None = None
    ) -> LiveServer:
        """Starts an application, which is told its own URL."""
        server = self._running.enter_context(LiveServer(make_app, reserved))
        self._servers.append(server)
        return server

    def stop_all_soon(self) -> None:
        """Tells all servers to stop at once, which is quicker than one by one."""
        for server in self._servers:
            server.stop_soon()

    def controller(
        self, *, reserved: ReservedPort | None = None, **more: Any
    ) -> tuple[WatchedController, LiveServer]:
        controller = WatchedController(**more)
        app = create_controller_app(controller=controller)
        return controller, self.serve(lambda _: app, reserved)

    def worker(self, served: ServedModel, controller_url: str | None, **more: Any) -> LiveServer:
        fields: dict[str, Any] = {
            "model_names": ["echo"],
            "controller_address": controller_url,
            "pace": QUICK,
        }
        return self.serve(
            lambda url: create_worker_app(
                served, WorkerSettings(**{**fields, "worker_address": url, **more})
            )
        )

    def api(self, controller_url: str, **more: Any) -> tuple[AppSettings, LiveServer]:
        settings = AppSettings(**{"api_keys": None, "controller_address": controller_url, **more})
        return settings, self.serve(lambda _: create_openai_app(settings))

    def __call__(
        self,
        script: Script | None = None,
        *,
        worker: dict[str, Any] | None = None,
        api: dict[str, Any] | None = None,
        **model: Any,
    ) -> Stack:
        served, engine = make_served(script, **model)
        controller, controller_server = self.controller()
        worker_server = self.worker(served, controller_server.url, **(worker or {}))
        settings, api_server = self.api(controller_server.url, **(api or {}))
        controller.await_worker()
        stack = Stack(
            served, engine, controller, controller_server, worker_server, api_server, settings
        )
        self._running.callback(stack.close)
        return stack
