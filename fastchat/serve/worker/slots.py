"""How many requests a worker takes on at once, and who is next in line.

Pure bookkeeping on one event loop; knows nothing of what is done in a slot.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Slots:
    """A counted number of places, given out in order of arrival.

    Args:
        limit: places, at least 1; None for as many as come.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._held: set[Claim] = set()
        self._line: dict[Claim, None] = {}

    @property
    def in_use(self) -> int:
        """Places that are taken."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Claims that wait for a place."""
        return len(self._line)

    def claim(self) -> Claim:
        """Joins the line. Leaving the claim's `with` block gives up the place or the wait."""
        return Claim(self)

    def join(self, claim: Claim) -> None:
        """Puts a claim in line."""
        self._line[claim] = None
        self._admit()

    def leave(self, claim: Claim) -> None:
        """Takes a claim out of its place or of the line."""
        self._held.discard(claim)
        self._line.pop(claim, None)
        self._admit()

    def _admit(self) -> None:
        while self._line and (self.limit is None or len(self._held) < self.limit):
            claim = next(iter(self._line))
            del self._line[claim]
            self._held.add(claim)
            claim.granted.set()


class Claim:
    """One request's place, or its wait for one; a context manager.

    Attributes:
        granted: set once the place is there.
    """

    def __init__(self, slots: Slots) -> None:
        self.granted = asyncio.Event()
        self._slots = slots

    def __enter__(self) -> Claim:
        self._slots.join(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slots.leave(self)

    async def wait(self, timeout_s: float) -> bool:
        """Waits for the place, for so long at most. Returns whether it is there."""
        if self.granted.is_set():
            return True
        try:
            await asyncio.wait_for(self.granted.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
