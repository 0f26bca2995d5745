"""Workers, users and a controller over simulated time.

The controller is the real one, `fastchat.serve.cluster.controller.Controller`, with the simulated
time as its clock: it registers, hears and forgets workers and names one for each request by its
own code. Everything else is a model.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from users import Conversation
from worker_model import Engine, Rates, Request

from fastchat.protocol.worker import DispatchQuestion, HeartBeat, WorkerStatus
from fastchat.serve.cluster.addresses import AddressPolicy
from fastchat.serve.cluster.controller import Controller, ControllerSettings

_MODEL = "yuan2"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Changes:
    """How often workers come and go, each a minute, at random times.

    Attributes:
        join: new ones register, with nothing in their caches.
        leave: take their leave and finish what they do.
        die: fall silent with all that they do.
    """

    join: float = 0.0
    leave: float = 0.0
    die: float = 0.0


@dataclass(slots=True, eq=False)
class Worker:
    """A worker as the simulation sees it.

    Attributes:
        version: of its engine's plan; an end of steps that was planned before counts no more.
        load: integral of its queue over the measured time, request-seconds.
        asked: requests in the measured time.
    """

    address: str
    engine: Engine
    since_s: float
    alive: bool = True
    left: bool = False
    version: int = 0
    load: float = 0.0
    asked: int = 0
    seen_s: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What was measured: of requests that were asked after the warm-up.

    Attributes:
        first_s: time to first token of each.
        prompt, hit, possible: tokens of prompts, those found in a cache, and those that were
            computed anywhere before: what one cache without end for the whole fleet would find.
        lost: requests whose worker died when they had output.
        retried: questions for another worker.
        loads: mean queue of each worker that was there all the time.
        busy: the share of that time that each spent computing.
        asked: requests that each got.
    """

    first_s: list[float] = field(default_factory=list)
    prompt: int = 0
    hit: int = 0
    possible: int = 0
    lost: int = 0
    retried: int = 0
    loads: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)


class Fleet:
    """See the module.

    Args:
        method: a dispatch method of the controller's.
        workers: at the start.
        rates: of each.
        warm_s: what comes before is not measured.
        seconds: until the end, warm-up included.
        seed: of the controller's chance and of the changes.
    """

    def __init__(
        self,
        method: str,
        workers: int,
        rates: Rates,
        *,
        warm_s: float,
        seconds: float,
        changes: Changes,
        seed: int,
    ) -> None:
        self._now = 0.0
        settings = ControllerSettings(dispatch_method=method, token="", policy=AddressPolicy())
        self._controller = Controller(settings, now=lambda: self._now, chance=Random(seed))
        self._rates = rates
        self._warm_s, self._seconds = warm_s, seconds
        self._workers: dict[str, Worker] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._chance = Random(seed + 1)
        self._turns: dict[Request, tuple[Conversation, int]] = {}
        self._computed: dict[object, int] = {}
        self.outcome = Outcome()
        for _ in range(workers):
            self._join()
        for per_minute, act in (
            (changes.join, self._join),
            (changes.leave, self._leave),
            (changes.die, self._die),
        ):
            for at_s in self._times(per_minute / 60):
                self._at(at_s, act)

    def _times(self, rate: float) -> Iterator[float]:
        at_s = self._chance.expovariate(rate) if rate else self._seconds
        while at_s < self._seconds:
            yield at_s
            at_s += self._chance.expovariate(rate)

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (at_s, self._order, act))

    def run(self, conversations: list[Conversation]) -> Outcome:
        """Lets the time pass."""
        for conversation in conversations:
            self._at(conversation.at_s, lambda c=conversation: self._ask(c, c.begins))  # type: ignore[misc]
        while self._events and self._events[0][0] < self._seconds:
            self._now, _, act = heapq.heappop(self._events)
            act()
        self._now = self._seconds
        for worker in self._workers.values():
            self._look(worker)
            if worker.alive and not worker.left and worker.since_s <= self._warm_s:
                measured_s = self._seconds - self._warm_s
                self.outcome.loads.append(worker.load / measured_s)
                self.outcome.busy.append(worker.busy_s / measured_s)
                self.outcome.asked.append(worker.asked)
        return self.outcome

    # Workers.

    def _join(self) -> None:
        number = len(self._workers)
        address = (
            f"http://127.{1 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}:21002"
        )
        worker = Worker(address, Engine(self._rates), self._now)
        self._workers[address] = worker
        status = WorkerStatus(model_names=[_MODEL])
        self._controller.registry.register(address, status, now=self._now)
        beat_s = self._controller.settings.heart_beat_s
        self._at(self._now + beat_s * self._chance.random(), lambda: self._beat(worker))

    def _beat(self, worker: Worker) -> None:
        if not worker.alive or worker.left:
            return
        message = HeartBeat(worker_name=worker.address, queue_length=worker.engine.queue_length)
        answer = self._controller.heart_beat(message)
        assert answer.next_s is not None
        self._at(self._now + answer.next_s, lambda: self._beat(worker))

    def _someone(self) -> Worker:
        there = [w for w in self._workers.values() if w.alive and not w.left]
        return self._chance.choice(there)

    def _leave(self) -> None:
        worker = self._someone()
        worker.left = True
        self._controller.remove(worker.address)

    def _die(self) -> None:
        worker = self._someone()
        self._look(worker)
        worker.alive = False
        worker.version += 1
        for request in worker.engine.requests():
            conversation, turn = self._turns.pop(request)
            if request.first_s >= 0:
                self.outcome.lost += request.arrived_s >= self._warm_s
            else:
                self._ask(conversation, turn, (worker.address,), request.arrived_s)

    def _look(self, worker: Worker) -> None:
        """Adds up a worker's load until now."""
        since_s = max(worker.seen_s, self._warm_s)
        if self._now > since_s and worker.alive:
            worker.load += worker.engine.queue_length * (self._now - since_s)
        worker.seen_s = self._now

    # Requests.

    def _ask(
        self,
        conversation: Conversation,
        turn: int,
        failed: tuple[str, ...] = (),
        arrived_s: float | None = None,
    ) -> None:
        arrived_s = self._now if arrived_s is None else arrived_s
        names = conversation.names(turn)[-64:]
        question = DispatchQuestion(model=_MODEL, prefix=names, failed=list(failed))
        address = self._controller.worker_address(question).address
        worker = self._workers.get(address)
        if failed:
            self.outcome.retried += 1
        if worker is None or not worker.alive:
            if worker is not None and len(failed) + 1 < _ATTEMPTS:
                self._ask(conversation, turn, (*failed, address), arrived_s)
            else:
                self.outcome.lost += arrived_s >= self._warm_s
            return
        request = Request(
            f"s{conversation.system}" if conversation.system >= 0 else None,
            conversation.number,
            conversation.system_tokens,
            conversation.history(turn),
            conversation.turns[turn].question,
            conversation.turns[turn].answer,
            arrived_s,
        )
        self._turns[request] = (conversation, turn)
        self._look(worker)
        worker.asked += self._now >= self._warm_s
        worker.engine.add(request, self._now)
        self._plan(worker)

    def _plan(self, worker: Worker) -> None:
        """Notes when the worker's steps end, in place of what was noted before."""
        worker.version += 1
        version = worker.version
        if worker.engine.ends_s is not None:
            self._at(worker.engine.ends_s, lambda: self._end_steps(worker, version))

    def _end_steps(self, worker: Worker, version: int) -> None:
        if version != worker.version:
            return
        self._look(worker)
        busy_s = worker.engine.busy_s
        told = worker.engine.end_steps(self._now)
        if self._now >= self._warm_s:
            worker.busy_s += min(worker.engine.busy_s - busy_s, self._now - self._warm_s)
        for request in told.first:
            self._first(request)
        for request in told.done:
            conversation, turn = self._turns.pop(request)
            if turn + 1 < len(conversation.turns):
                after_s = conversation.turns[turn + 1].think_s
                self._at(
                    self._now + after_s,
                    lambda c=conversation, t=turn + 1: self._ask(c, t),  # type: ignore[misc]
                )
        self._plan(worker)

    def _first(self, request: Request) -> None:
        possible = self._possible(request)
        if request.system is not None:
            self._computed[request.system] = request.system_tokens
        whole = request.history + request.question + request.answer
        self._computed[request.conversation] = whole
        if request.arrived_s < self._warm_s:
            return
        found = self.outcome
        found.first_s.append(request.first_s - request.arrived_s)
        found.prompt += request.prompt
        found.hit += request.hit
        found.possible += possible

    def _possible(self, request: Request) -> int:
        """What a cache without end would find of a prompt."""
        tokens = self._computed.get(request.system, 0) if request.system is not None else 0
        if tokens == request.system_tokens:
            tokens += min(self._computed.get(request.conversation, 0), request.history)
        return min(tokens, request.prompt - 1) // 16 * 16
