"""Finds stop strings in text that arrives in pieces. Pure: knows nothing of tokens or models."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Releases text as soon as it can no longer be part of a stop string.

    The earliest occurrence of any stop string ends the text; what stands before it is
    released, the stop string itself never is.

    Args:
        stops: stop strings; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes new text; returns what is certain not to belong to a stop string."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        self._held += text
        found = min((i for i in map(self._held.find, self._stops) if i >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._release(found)
        return self._release(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """The text held back, when no more will come."""
        return self._release(0 if self.stopped else len(self._held))

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that could start a stop string."""
        for size in range(min(len(self._held), self._longest - 1), 0, -1):
            ending = self._held[-size:]
            if any(stop.startswith(ending) for stop in self._stops):
                return size
        return 0

    def _release(self, size: int) -> str:
        released, self._held = self._held[:size], self._held[size:]
        return released
