"""How much one person may ask for. Pure: times come from the caller."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

_HOUR_S = 3600.0


@dataclass(slots=True)
class Limits:
    """Limits for each person; 0 sets none.

    Attributes:
        running: answers that are written at a time.
        hourly: messages within an hour.
    """

    running: int = 0
    hourly: int = 0
    _now: Counter[str] = field(default_factory=Counter)
    _sent: dict[str, deque[float]] = field(default_factory=dict)

    def reached(self, person: str, now_s: float) -> str | None:
        """Which limit a person has reached, by its name; None if it may go on."""
        sent = self._sent.get(person, deque())
        while sent and sent[0] <= now_s - _HOUR_S:
            sent.popleft()
        if not sent:
            self._sent.pop(person, None)
        if self.running and self._now[person] >= self.running:
            return "running"
        if self.hourly and len(sent) >= self.hourly:
            return "hourly"
        return None

    def begin(self, person: str, now_s: float) -> None:
        """A person has sent a message, and an answer is being written."""
        self._now[person] += 1
        if self.hourly:
            self._sent.setdefault(person, deque()).append(now_s)

    def end(self, person: str) -> None:
        """An answer has ended."""
        self._now[person] -= 1
        if self._now[person] <= 0:
            del self._now[person]
