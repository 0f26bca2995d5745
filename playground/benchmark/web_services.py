"""What the benchmark of the web page runs on: a controller, an echo as worker, API and page."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastchat.serve.processes import Service, Services, free_ports

PACE_S = 0.02
READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs of the servers."""

    controller: str
    worker: str
    api: str
    page: str


@contextmanager
def services_of(folder: Path) -> Iterator[Addresses]:
    """Starts all four, each a process; they stop when the context is left."""
    ports = controller, worker, api, page = free_ports(4)
    local = ["--host", "127.0.0.1", "--port"]
    urls = Addresses(*(f"http://127.0.0.1:{port}" for port in ports))
    flags = [*local, str(page), "--controller-url", urls.controller, "--limit-turns", "1000"]
    flags += ["--history-file", str(folder / "history"), "--concurrency-count", "100"]
    quiet = {"LOGDIR": ""}
    with Services(folder) as services:
        for name, module, own, ready in (
            ("controller", "fastchat.serve.controller", [*local, str(controller)], urls.controller),
            ("echo", __spec__.name, [str(worker), urls.controller], urls.worker),
            (
                "api",
                "fastchat.serve.openai_api_server",
                [*local, str(api), "--controller-address", urls.controller],
                urls.api,
            ),
        ):
            services.start(Service(name, module, own, ready + "/health", quiet))
        services.wait_until_ready(READY_S)
        services.start(
            Service("page", "fastchat.serve.gradio_web_server", flags, urls.page + "/config", quiet)
        )
        services.wait_until_ready(READY_S)
        yield urls


class _Pace(asyncio.Event):
    """A gate that opens at a reader's pace."""

    async def wait(self) -> bool:  # type: ignore[override]
        await asyncio.sleep(PACE_S)
        return True


def _last_of(prompt: str) -> str:
    said = [part for part in re.split("<n>|<sep>", prompt) if part]
    return said[-1] if said else ""


def serve_echo(port: int, controller: str) -> None:
    """Runs a worker whose model writes what it was asked, a token at a time."""
    from fastchat.engine.echo import Script, echo_model
    from fastchat.serve.running import bind, run_app
    from fastchat.serve.worker.app import WorkerSettings, create_worker_app

    script = Script(answer=lambda prompt: "答" + _last_of(prompt), gate=_Pace())
    settings = WorkerSettings(
        worker_address=f"http://127.0.0.1:{port}",
        model_names=["echo"],
        controller_address=controller,
        limit_worker_concurrency=100,
    )
    served = echo_model(script, context_length=10**6)
    run_app(create_worker_app(served, settings), bind("127.0.0.1", port), "127.0.0.1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("controller")
    args = parser.parse_args()
    serve_echo(args.port, args.controller)
