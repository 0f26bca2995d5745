"""Questions to a controller at planned times, and workers that are only names.

Knows HTTP/1.1 over connections that stay open, and the controller's messages; starts no process.
One loop sends everything, so that what it costs itself can be told.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

_SERVICE_S = 2.0
_TICK_S = 0.001
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

Answered = Callable[[int, bytes], None]
"""Is told the status and the body of an answer."""


def post(url: str, body: object) -> bytes:
    """A whole request as bytes."""
    return with_body(heading(url), json.dumps(body).encode())


def heading(url: str) -> bytes:
    """A request's beginning, up to the length of its body."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )
    return head.encode()


def with_body(head: bytes, body: bytes) -> bytes:
    """A whole request from its beginning."""
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


class Connection(asyncio.Protocol):
    """A connection that stays open and carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: Answered | None = None
        self._data = b""

    @classmethod
    async def to(cls, url: str) -> Connection:
        """Opens one to the server of a URL."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, found = await loop.create_connection(cls, parts.hostname, parts.port)
        return found

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def send(self, request: bytes, answered: Answered) -> None:
        """Sends a request; `answered` is called with its answer, or with status 0 if none comes."""
        assert self._transport is not None
        assert self._answered is None
        self._answered = answered
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self._data = b""
        self._tell(int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        del exc
        if self._answered is not None:
            self._tell(0, b"")

    def _tell(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, body)

    async def ask(self, request: bytes) -> tuple[int, Any]:
        """Sends a request and waits for its answer."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def answered(status: int, body: bytes) -> None:
            if not future.done():  # cancelled, if nobody waits any more
                future.set_result((status, body))

        self.send(request, answered)
        status, body = await future
        return status, json.loads(body or b"null")

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.close()


@dataclass(slots=True)
class Dispatches:
    """What came of the questions of a run; seconds.

    Attributes:
        took_s: from the planned time of sending until the answer was there.
        late_s: from the planned time until the question was sent: the generator's own delay.
        failed: answers that named no worker.
        asked: questions to each worker.
        beats, beats_lost: signs of life that were answered, and that were not.
        cpu_s, wall_s: of this process.
    """

    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    failed: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    beats: int = 0
    beats_lost: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


class Fleet:
    """Workers that are only names: they register, send signs of life, and count what they get."""

    def __init__(self, controller: str, count: int, seed: int) -> None:
        self._controller = controller
        self.names = [
            f"http://127.{1 + n // 62_500}.{n // 250 % 250}.{n % 250 + 1}:21002"
            for n in range(count)
        ]
        self._queues = dict.fromkeys(self.names, 0)
        self._chance = random.Random(seed)
        self._head = heading(f"{controller}/receive_heart_beat")
        self._silent = False
        self._connections: list[Connection] = []
        self.beats = self.lost = 0

    async def register(self) -> None:
        """Registers everybody, each over a connection of its own, and begins to beat."""
        for name in self.names:
            connection = await Connection.to(self._controller)
            self._connections.append(connection)
            status = {"model_names": ["echo"], "speed": 1, "queue_length": 0}
            message = {"worker_name": name, "check_heart_beat": True, "worker_status": status}
            answered, told = await connection.ask(
                post(f"{self._controller}/register_worker", message)
            )
            if answered != 200:
                raise SystemExit(f"{name} was not registered: {told}")
            # Real workers do not start at one moment.
            self._later(self._chance.random(), self._beat, name, connection)

    def _beat(self, name: str, connection: Connection) -> None:
        body = b'{"worker_name":"%b","queue_length":%d}' % (name.encode(), self._queues[name])

        def answered(status: int, body: bytes) -> None:
            answer = json.loads(body) if status == 200 else {}
            if answer.get("exist"):
                self.beats += 1
                self._later(answer["next_s"], self._beat, name, connection)
            else:
                self.lost += 1

        if not self._silent:
            connection.send(with_body(self._head, body), answered)

    def _later(self, after_s: float, act: Callable[..., None], *with_these: object) -> None:
        asyncio.get_running_loop().call_later(after_s, act, *with_these)

    def take(self, name: str) -> None:
        """A worker gets a request, which keeps it busy for a while."""
        self._queues[name] += 1
        self._later(self._chance.expovariate(1 / _SERVICE_S), self._done, name)

    def _done(self, name: str) -> None:
        self._queues[name] -= 1

    def close(self) -> None:
        """Falls silent."""
        self._silent = True
        for connection in self._connections:
            connection.close()


def questions(url: str, seed: int) -> Iterator[bytes]:
    """Requests for a worker: conversations that share system prompts and grow turn by turn."""
    chance = random.Random(seed)
    open_ones: list[list[str]] = []
    while True:
        if len(open_ones) < 2000 or chance.random() < 0.3:
            open_ones.append([f"{chance.randrange(100):024x}"])
        place = chance.randrange(len(open_ones))
        conversation = open_ones[place]
        conversation.append(f"{chance.getrandbits(96):024x}")
        if chance.random() < 0.3:
            open_ones[place] = open_ones[-1]
            open_ones.pop()
        yield post(f"{url}/get_worker_address", {"model": "echo", "prefix": conversation})


async def dispatch(
    controller: str, fleet: Fleet, *, rate: float, seconds: float, connections: int, seed: int
) -> Dispatches:
    """Asks for workers at random times planned before, however slow the answers are.

    Args:
        controller: its URL.
        fleet: gets the requests.
        rate: questions a second, as a Poisson process.
        seconds: for how long.
        connections: of those who ask; a question waits for a free one, and its time counts.
        seed: of times and questions.
    """
    chance = random.Random(seed)
    planned: deque[float] = deque()
    at = 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        planned.append(at)
    asked = questions(controller, seed)
    bodies = deque(next(asked) for _ in planned)
    # In turn: a server closes those that it has not heard for seconds.
    free = deque([await Connection.to(controller) for _ in range(connections)])
    opened = list(free)
    found = Dispatches()
    waiting = len(planned)
    beats, lost = fleet.beats, fleet.lost
    cpu, began = time.process_time(), time.perf_counter()
    done = asyncio.get_running_loop().create_future()

    def answer_to(due: float, connection: Connection) -> Answered:
        def answered(status: int, body: bytes) -> None:
            nonlocal waiting
            found.took_s.append(time.perf_counter() - began - due)
            name = json.loads(body)["address"] if status == 200 else ""
            if name:
                found.asked[name] = found.asked.get(name, 0) + 1
                fleet.take(name)
            else:
                found.failed += 1
            free.append(connection)
            waiting -= 1
            if not waiting:
                done.set_result(None)

        return answered

    while planned:
        now = time.perf_counter() - began
        while planned and planned[0] <= now and free:
            due, connection = planned.popleft(), free.popleft()
            found.late_s.append(now - due)
            connection.send(bodies.popleft(), answer_to(due, connection))
        await asyncio.sleep(_TICK_S)
    await done
    found.wall_s = time.perf_counter() - began
    found.cpu_s = time.process_time() - cpu
    found.beats, found.beats_lost = fleet.beats - beats, fleet.lost - lost
    for connection in opened:
        connection.close()
    return found
