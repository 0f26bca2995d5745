"""Services that outlive whoever started them: recorded by process id, stopped by that record.

A record names a process by its id and by when it began, so that an id which the system has
given to another process since is never mistaken for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastchat.errors import FastChatError
from fastchat.serve.processes import Service, answers

_POLL_S = 0.1
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Record:
    """A service that was started.

    Attributes:
        name: of the service.
        module: that it runs.
        pid: of its process.
        began: when the process began, on the system's own clock.
    """

    name: str
    module: str
    pid: int
    began: int


def beginning_of(pid: int) -> int | None:
    """When a process began, in ticks since the system did; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(rest[18])


class Records:
    """The services of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def _file(self) -> Path:
        return self._folder / "services.json"

    def running(self) -> list[Record]:
        """Those that still run, in the order in which they were started."""
        try:
            listed = json.loads(self._file.read_text(encoding="utf-8"))
        except OSError:
            return []
        except ValueError as error:
            raise FastChatError(f"{self._file} is no record of services: {error}.") from error
        records = [Record(**item) for item in listed]
        return [each for each in records if beginning_of(each.pid) == each.began]

    def launch(self, service: Service) -> Record:
        """Starts a service and records it.

        Raises:
            FastChatError: one of that name runs already.
        """
        running = self.running()
        for record in running:
            if record.name == service.name:
                raise FastChatError(
                    f"{service.name} runs already, as process {record.pid}.",
                    hint="Stop it with python3 -m fastchat.serve.shutdown_serve.",
                )
        self._folder.mkdir(parents=True, exist_ok=True)
        pid = _spawn(service, self.log(service.name))
        record = Record(service.name, service.module, pid, beginning_of(pid) or 0)
        self._write([*running, record])
        return record

    def wait_until_ready(self, service: Service, record: Record, timeout_s: float) -> None:
        """Returns once a service answers.

        Raises:
            FastChatError: it ended, or does not answer in time; says what it logged.
        """
        deadline = time.monotonic() + timeout_s
        while not answers(service.ready_url):
            if beginning_of(record.pid) != record.began:
                raise self._failure(service.name, "ended")
            if time.monotonic() > deadline:
                raise self._failure(service.name, f"was not ready within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def stop(self, records: Sequence[Record], grace_s: float) -> None:
        """Asks services to end, the last one first, and kills those that have not in time."""
        for record in reversed(records):
            _signal(record, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for record in reversed(records):
            while beginning_of(record.pid) == record.began and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            _signal(record, signal.SIGKILL)
        self._write([each for each in self.running() if each not in records])

    def log(self, name: str) -> Path:
        """Where a service's output goes."""
        return self._folder / f"{name}.log"

    def _write(self, records: Sequence[Record]) -> None:
        text = json.dumps([asdict(record) for record in records], indent=2)
        new = self._file.with_suffix(".new")
        new.write_text(text + "\n", encoding="utf-8")
        new.replace(self._file)

    def _failure(self, name: str, what: str) -> FastChatError:
        text = self.log(name).read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()[-_LOG_LINES:] or ["(nothing)"]
        return FastChatError(f"{name} {what}. Its last words:\n  " + "\n  ".join(lines))


def _spawn(service: Service, log: Path) -> int:
    """Starts a process that is nobody's child to wait for; returns its id."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", service.module, *service.flags],
        os.environ | service.environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _signal(record: Record, number: signal.Signals) -> None:
    if beginning_of(record.pid) == record.began:
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return
