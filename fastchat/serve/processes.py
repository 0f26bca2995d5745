"""Starts services as child processes, waits until they answer, and stops them all.

Knows nothing of what a service does: a module to run, flags, and a URL that answers 200
once it is ready. Each runs in a session of its own, so that Ctrl-C in a terminal reaches
whoever started them and not the services.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fastchat.errors import FastChatError

_POLL_S = 0.1
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Service:
    """A process to run.

    Attributes:
        name: for messages and for the log file.
        module: run as `python3 -m MODULE`.
        flags: its command line.
        ready_url: answers 200 once the service is ready.
        environment: set beside the current environment.
    """

    name: str
    module: str
    flags: Sequence[str]
    ready_url: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Services:
    """The child processes of one stack; leaving the context stops them, last started first.

    Args:
        log_folder: each service's output goes to NAME.log there.
    """

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._running: list[tuple[Service, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Services:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, service: Service) -> int:
        """Starts a service; returns its process id."""
        self._log_folder.mkdir(parents=True, exist_ok=True)
        with self._log(service).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (a module of ours, no shell)
                [sys.executable, "-m", service.module, *service.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | service.environment,
                start_new_session=True,
            )
        self._running.append((service, process))
        return process.pid

    def wait_until_ready(self, timeout_s: float) -> None:
        """Returns once every service answers.

        Raises:
            FastChatError: a service ended, or does not answer in time; says what it logged.
        """
        deadline = time.monotonic() + timeout_s
        for service, process in self._running:
            while not answers(service.ready_url):
                if process.poll() is not None:
                    raise self._failure(service, f"ended with status {process.returncode}")
                if time.monotonic() > deadline:
                    raise self._failure(service, f"was not ready within {timeout_s:g} s")
                time.sleep(_POLL_S)

    def wait_until_one_ends(self) -> None:
        """Returns when a service has ended by itself.

        Raises:
            FastChatError: it ended with an error; says what it logged.
        """
        while True:
            for service, process in self._running:
                if process.poll() is not None:
                    raise self._failure(service, f"ended with status {process.returncode}")
            time.sleep(_POLL_S)

    def stop(self, grace_s: float = 10.0) -> None:
        """Asks every service to end, and kills those that have not after the grace time."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + grace_s
        for _, process in reversed(self._running):
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _log(self, service: Service) -> Path:
        return self._log_folder / f"{service.name}.log"

    def _failure(self, service: Service, what: str) -> FastChatError:
        log = self._log(service)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return FastChatError(
            f"{service.name} {what}. Its last words:\n  " + "\n  ".join(lines or ["(nothing)"]),
            hint=f"\nThe whole log: {log}",
        )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nothing uses right now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def answers(url: str) -> bool:
    """Whether a URL answers with 200."""
    import httpx2

    try:
        with httpx2.Client(trust_env=False, timeout=2.0) as client:
            return client.get(url).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False
