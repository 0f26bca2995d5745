"""The engine for Yuan2: all requests share every step of one network.

A thread of its own runs `EngineCore`, step after step; requests come in and go out on the
event loops of those who ask. Knows nothing of HTTP or of chat templates.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastchat.engine import sampling
from fastchat.engine.adapter_names import AdapterNames
from fastchat.engine.answer import Answer, Vocabulary
from fastchat.engine.base import EngineStats, GenerationEvent, GenerationRequest
from fastchat.engine.batching.core import EngineCore, Outcome
from fastchat.engine.batching.sequence import Sequence as Line
from fastchat.engine.lookup import Drafter
from fastchat.engine.network.adapters import Adapter
from fastchat.engine.room import answer_budget, check_row
from fastchat.engine.sampling import RowState
from fastchat.engine.structured import Grammars
from fastchat.errors import GenerationError, OverloadedError


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request between the loop that asked and the thread that computes."""

    sequence: Line
    loop: asyncio.AbstractEventLoop
    outcomes: asyncio.Queue[Outcome] = field(default_factory=asyncio.Queue)
    aborted: bool = False


class ContinuousEngine:
    """See `Engine`.

    Args:
        core: has the network, the cache and the queue.
        vocabulary: of the model.
        grammars: compiles what answers have to look like.
        context_length: prompt plus answer, in tokens, at most.
        read_adapter: from an adapter's folder to what it holds.
        drafter: makes what guesses an answer's next tokens, several of which are then checked
            at once; None guesses nothing.
    """

    def __init__(
        self,
        core: EngineCore,
        vocabulary: Vocabulary,
        grammars: Grammars,
        *,
        context_length: int,
        read_adapter: Callable[[str], Adapter],
        drafter: Callable[[Sequence[int]], Drafter] | None = Drafter,
    ) -> None:
        self.core = core
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._context_length = context_length
        self._drafter = drafter
        self._read_adapter = read_adapter
        self._adapters = AdapterNames()
        self._changing_adapters = asyncio.Lock()
        self._orders = itertools.count()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets: dict[Line, _Ticket] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def context_length(self) -> int:
        """See `Engine.context_length`."""
        return self._context_length

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return self.core.stats()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`."""
        with self._adapters.used(request.adapter) as adapter:
            sequence = await self._sequence(request, adapter)
            async with aclosing(self._outcomes(sequence)) as outcomes:
                async for outcome in outcomes:
                    for event in outcome.events:
                        yield event

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Engine.embed`."""
        for row in batch:
            check_row(row, self._vocabulary.size, self._context_length)
        return list(await asyncio.gather(*(self._embed(row) for row in batch)))

    @property
    def adapters(self) -> Sequence[str]:
        """See `Engine.adapters`."""
        return self._adapters.names

    async def load_adapter(self, name: str, folder: str) -> None:
        """See `Engine.load_adapter`."""
        async with self._changing_adapters:
            self._adapters.check_free(name)
            adapter = await asyncio.to_thread(self._read_adapter, folder)
            number = self._adapters.number()
            await self._set_adapters({**self._adapters.loaded, number: adapter})
            self._adapters.add(name, number, adapter)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        number = self._adapters.hide(name)
        await self._adapters.unused(number)
        async with self._changing_adapters:
            self._adapters.drop(number)
            await self._set_adapters(self._adapters.loaded)

    async def _set_adapters(self, adapters: Mapping[int, Adapter]) -> None:
        stacks = await asyncio.to_thread(self.core.network.stacks, adapters)
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def exchange() -> None:
            self.core.network.adapters = stacks
            loop.call_soon_threadsafe(done.set)

        self._inbox.put(exchange)
        await done.wait()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)
        self.core.close()

    async def _sequence(self, request: GenerationRequest, adapter: int) -> Line:
        params, vocabulary = request.sampling, self._vocabulary
        sampling.check(params, vocabulary.size)
        budget = answer_budget(request, vocabulary.size, self._context_length)
        matcher = None
        if params.grammar is not None:
            matcher = await asyncio.to_thread(self._grammars.compile, params.grammar)
        answer = Answer(request, vocabulary, budget)
        alone = params.prompt_logprobs is not None
        return Line(
            request,
            order=next(self._orders),
            tokens=list(request.prompt_ids),
            budget=budget,
            namespace=None if alone else (adapter, request.cache_salt),
            adapter=adapter,
            arrived=time.monotonic(),
            deadline=_deadline(request),
            answer=answer,
            sampling=RowState(params, request.prompt_ids, end_ids=answer.end_ids, matcher=matcher),
            lookup=None if self._drafter is None else self._drafter(request.prompt_ids),
        )

    async def _embed(self, row: Sequence[int]) -> list[float]:
        sequence = Line(
            GenerationRequest(row),
            order=next(self._orders),
            tokens=list(row),
            embeds=True,
        )
        async with aclosing(self._outcomes(sequence)) as outcomes:
            async for outcome in outcomes:
                if outcome.embedding is not None:
                    return outcome.embedding
        raise GenerationError("The engine ended without an embedding.")

    async def _outcomes(self, sequence: Line) -> AsyncGenerator[Outcome, None]:
        """What comes of a sequence, until it ends; closing this aborts it."""
        if self._closed:
            raise GenerationError("The engine is closed.")
        ticket = _Ticket(sequence, asyncio.get_running_loop())
        self._inbox.put(lambda: self._add(ticket))
        final = False
        try:
            while not final:
                outcome = await ticket.outcomes.get()
                final = outcome.final
                yield outcome
                if outcome.error is not None:
                    raise outcome.error
        finally:
            if not final:
                ticket.aborted = True
                self._inbox.put(lambda: self._abort(ticket))

    # What follows runs in the engine's thread.

    def _run(self) -> None:
        while (command := self._next()) is not None:
            command()
        closed = GenerationError("The engine was closed.")
        self._tell([Outcome(sequence, [], error=closed) for sequence in list(self._tickets)])

    def _next(self) -> Callable[[], None] | None:
        """What was asked for last; with nothing asked, a step; with nothing to do, waits."""
        try:
            return self._inbox.get(block=not self.core.busy)
        except queue.Empty:
            return self._step

    def _step(self) -> None:
        self._tell(self.core.step(time.monotonic()))

    def _add(self, ticket: _Ticket) -> None:
        if ticket.aborted:
            return
        self._tickets[ticket.sequence] = ticket
        try:
            self.core.scheduler.add(ticket.sequence)
        except OverloadedError as error:
            self._tell([Outcome(ticket.sequence, [], error=error)])

    def _abort(self, ticket: _Ticket) -> None:
        if self._tickets.pop(ticket.sequence, None) is not None:
            self.core.scheduler.remove(ticket.sequence)

    def _tell(self, outcomes: list[Outcome]) -> None:
        """Hands outcomes over, with one wake-up for each loop."""
        by_loop: dict[Any, list[tuple[_Ticket, Outcome]]] = defaultdict(list)
        for outcome in outcomes:
            ticket = self._tickets[outcome.sequence]
            if outcome.final:
                del self._tickets[outcome.sequence]
            by_loop[ticket.loop].append((ticket, outcome))
        for loop, told in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, told)


def _deliver(told: list[tuple[_Ticket, Outcome]]) -> None:
    for ticket, outcome in told:
        ticket.outcomes.put_nowait(outcome)


def _deadline(request: GenerationRequest) -> float | None:
    return None if request.deadline_s is None else time.monotonic() + request.deadline_s
