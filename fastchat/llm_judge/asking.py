"""Asking a model for one reply, whatever it runs on; and asking many times at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm  # type: ignore[import-untyped]

from fastchat.errors import (
    AuthenticationError,
    FastChatError,
    ForbiddenError,
    GenerationError,
    OverloadedError,
    SettingsError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)

Messages = list[dict[str, str]]
_FINAL = (AuthenticationError, ForbiddenError, SettingsError, UnknownModelError)
PASSING = (GenerationError, OverloadedError, WorkerTimeoutError, WorkerUnavailableError)
"""Failures that may go away by themselves."""
_OUTAGE = 5
"""So many of them in a row, after all their tries, and the run ends."""
INCOMPLETE = 1
"""The exit status of a run that has left something to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said.

    Attributes:
        cut: whether it ended only because it had become too long.
    """

    text: str
    cut: bool = False


class Asker(Protocol):
    """A model that can be asked."""

    async def reply(self, messages: Messages, *, temperature: float, seed: int) -> Reply:
        """The next message.

        Args:
            messages: OpenAI messages, oldest first.
            temperature: 0 takes the likeliest token.
            seed: the same one gives the same reply, where a model can do that.

        Raises:
            FastChatError: there is no reply.
        """
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do that may fail without keeping the rest from being done."""

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Outcome:
    """What became of the jobs."""

    done: int = 0
    failed: list[str] = field(default_factory=list)

    def tell(self, what: str) -> int:
        """Says on stderr what failed; returns the exit status."""
        if not self.failed:
            return 0
        for line in self.failed[:10]:
            print(f"failed: {line}", file=sys.stderr)
        if len(self.failed) > 10:
            print(f"failed: {len(self.failed) - 10} more", file=sys.stderr)
        count = self.done + len(self.failed)
        print(
            f"{len(self.failed)} of {count} {what} are missing; the same command tries them again.",
            file=sys.stderr,
        )
        return INCOMPLETE


async def run_jobs(jobs: Sequence[Job], parallel: int, what: str) -> Outcome:
    """Does jobs, so many at once, and shows how far it is.

    Raises:
        FastChatError: what no other job would fare better with, such as a wrong key or a
            server that has gone away. What is done stays done.
    """
    outcome = Outcome()
    waiting = iter(jobs)
    with tqdm(total=len(jobs), desc=what, disable=None, file=sys.stderr) as bar:
        try:
            async with asyncio.TaskGroup() as group:
                streak = _Streak()
                for _ in range(min(parallel, len(jobs))):
                    group.create_task(_work(waiting, outcome, bar.update, streak))
        except ExceptionGroup as errors:
            ours, others = errors.split(FastChatError)
            if ours is None or others is not None:
                raise
            raise _first(ours) from None
    return outcome


@dataclass(slots=True)
class _Streak:
    failures: int = 0


async def _work(
    jobs: Iterable[Job], outcome: Outcome, tick: Callable[[], object], streak: _Streak
) -> None:
    for job in jobs:
        try:
            await job.run()
        except _FINAL:
            raise
        except FastChatError as error:
            outcome.failed.append(f"{job.name}: {error}")
            streak.failures += isinstance(error, PASSING)
            if streak.failures >= _OUTAGE:
                raise
        else:
            outcome.done += 1
            streak.failures = 0
        tick()


def _first(errors: ExceptionGroup[FastChatError]) -> FastChatError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
