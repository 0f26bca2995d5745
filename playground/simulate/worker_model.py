"""A worker's engine as a model in time: steps, a line, a cache of beginnings. Pure: no clock.

What it takes from `fastchat.engine`: all requests share every step; a step computes one token of
each that is generating and fills up with tokens of prompts, first come, first served; beginnings
are found in blocks of 16 tokens, and what is longest unused goes first. What it leaves out:
growth with the length of the context, guesses, requests that are set back (room for the whole
answer is taken at admission).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a worker is, and how much it holds.

    Attributes:
        step_s: of any step.
        row_s: for each request that is generating, in a step.
        token_s: for each token of a prompt.
        step_tokens: computed in a step at most.
        running: requests computed at once.
        room: tokens of the cache.
    """

    step_s: float
    row_s: float
    token_s: float
    step_tokens: int = 512
    running: int = 64
    room: int = 100_000


@dataclass(slots=True, eq=False)
class Request:
    """A question at a worker.

    Attributes:
        system, conversation: what its beginning is kept under; None is no system prompt.
        system_tokens, history, question, answer: tokens.
        arrived_s: when it was asked.
        first_s: when its first token was there; negative before.
        hit: tokens of the prompt that were found.
        left: tokens of the prompt that are still to be computed.
        room: tokens of the cache that it has taken and not filled yet.
    """

    system: Hashable
    conversation: Hashable
    system_tokens: int
    history: int
    question: int
    answer: int
    arrived_s: float
    first_s: float = -1.0
    hit: int = 0
    left: int = 0
    room: int = 0

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt."""
        return self.system_tokens + self.history + self.question


class Cache:
    """Beginnings that are kept: system prompts, and what follows them, by conversation.

    Args:
        room: tokens.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[Hashable, int] = OrderedDict()
        self._held: dict[Hashable, int] = {}
        self._used = 0

    def found(self, request: Request) -> int:
        """How much of a prompt is there, in whole blocks; some of it is always left to compute."""
        tokens = self._kept.get(request.system, 0) if request.system is not None else 0
        if tokens == request.system_tokens:
            tokens += min(self._kept.get(request.conversation, 0), request.history)
        return min(tokens, request.prompt - 1) // _BLOCK * _BLOCK

    def take(self, request: Request) -> bool:
        """Takes the room for a request and its answer, if it is there, and holds its beginning."""
        parts = _parts(request)
        for key, _ in parts:
            self._held[key] = self._held.get(key, 0) + 1
        need = sum(max(0, size - self._kept.get(key, 0)) for key, size in parts)
        while self._used + need > self._room:
            key = next((key for key in self._kept if key not in self._held), None)
            if key is None:
                self._release(request)
                return False
            self._used -= self._kept.pop(key)
        self._used += need
        request.room = need
        return True

    def keep(self, request: Request) -> None:
        """The prompt is computed: it can be found from now on."""
        self._used -= request.room
        request.room = 0
        for key, size in _parts(request):
            before = self._kept.get(key, 0)
            self._kept[key] = max(before, size)
            self._kept.move_to_end(key)
            self._used += self._kept[key] - before

    def drop(self, request: Request) -> None:
        """The request has ended; what was kept of it stays until the room is needed."""
        self._used -= request.room
        self._release(request)

    def _release(self, request: Request) -> None:
        for key, _ in _parts(request):
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


def _parts(request: Request) -> list[tuple[Hashable, int]]:
    """What a request keeps, each with its tokens; what comes first stays longest."""
    whole = request.history + request.question + request.answer
    parts = [(request.conversation, whole)]
    if request.system is not None:
        parts.append((request.system, request.system_tokens))
    return parts


@dataclass(slots=True)
class Told:
    """What a step brought."""

    first: list[Request] = field(default_factory=list)
    done: list[Request] = field(default_factory=list)


class Engine:
    """One worker's engine. Time goes on only by its methods' arguments.

    Attributes:
        ends_s: when the steps that run now end; None while there is nothing to do.
        busy_s: time in steps so far.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._cache = Cache(rates.room)
        self._line: deque[Request] = deque()
        self._prompts: deque[Request] = deque()
        self._answers: list[tuple[int, int, Request]] = []
        self._step = 0
        self._order = 0
        self._began_s = 0.0
        self._each_s = 0.0
        self._steps = 0
        self._chunks: list[tuple[Request, int]] = []
        self.ends_s: float | None = None
        self.busy_s = 0.0

    @property
    def queue_length(self) -> int:
        """Requests running and waiting."""
        return len(self._line) + len(self._prompts) + len(self._answers)

    def requests(self) -> list[Request]:
        """All of them."""
        return [*self._line, *self._prompts, *(request for *_, request in self._answers)]

    def add(self, request: Request, now_s: float) -> None:
        """A request arrives; it is looked at when the step that runs now has ended."""
        self._line.append(request)
        if self.ends_s is None:
            self._plan(now_s)
        elif not self._chunks and self._steps > 1:
            done = int((now_s - self._began_s) / self._each_s)
            self._steps = min(self._steps, done + 1)
            self.ends_s = self._began_s + self._steps * self._each_s

    def end_steps(self, now_s: float) -> Told:
        """The steps that ran have ended: what came of them. The next ones begin."""
        told = Told()
        self._step += self._steps
        self.busy_s += self._steps * self._each_s
        while self._answers and self._answers[0][0] <= self._step:
            told.done.append(heapq.heappop(self._answers)[2])
        for request, tokens in self._chunks:
            request.left -= tokens
            if request.left:
                continue
            self._prompts.remove(request)
            self._cache.keep(request)
            request.first_s = now_s
            told.first.append(request)
            if request.answer <= 1:
                told.done.append(request)
                continue
            self._order += 1
            ends = self._step + request.answer - 1
            heapq.heappush(self._answers, (ends, self._order, request))
        for request in told.done:
            self._cache.drop(request)
        self._plan(now_s)
        return told

    def _plan(self, now_s: float) -> None:
        rates = self._rates
        while self._line and len(self._prompts) + len(self._answers) < rates.running:
            if not self._cache.take(self._line[0]):
                break
            request = self._line.popleft()
            request.hit = self._cache.found(request)
            request.left = request.prompt - request.hit
            self._prompts.append(request)
        rows = len(self._answers)
        left = rates.step_tokens - rows
        self._chunks = []
        for request in self._prompts:
            if left <= 0:
                break
            tokens = min(left, request.left)
            left -= tokens
            self._chunks.append((request, tokens))
        computed = sum(tokens for _, tokens in self._chunks)
        self._each_s = rates.step_s + rates.row_s * rows + rates.token_s * computed
        if self._chunks:
            self._steps = 1
        elif rows:
            self._steps = self._answers[0][0] - self._step
        else:
            self._steps, self.ends_s = 0, None
            return
        self._began_s = now_s
        self.ends_s = now_s + self._steps * self._each_s
