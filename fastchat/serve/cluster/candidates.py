"""Workers to choose from, with their loads at hand. Pure.

A thousand of them are looked through for every request, so what all have to do lies side by side in
one list, and sums are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class WorkerEntry:
    """One registered worker.

    Attributes:
        address: its URL, which is also its name.
        queue_length: requests running and waiting, as last told, plus those sent since.
        last_heart_beat: seconds on the clock that the registry's caller uses.
        suspect: it could not be reached when last tried; cleared by its next sign of life.
        prompt: its signs of life have come in quick succession, so that one which is late
            tells something.
    """

    address: str
    model_names: list[str]
    speed: float
    queue_length: int
    check_heart_beat: bool
    last_heart_beat: float
    multimodal: bool = False
    suspect: bool = False
    prompt: bool = False

    @property
    def load(self) -> float:
        """Requests for its speed."""
        return self.queue_length / self.speed


class Candidates(Mapping[str, WorkerEntry]):
    """Workers by address.

    Whoever changes an entry's `queue_length` says so with `told`.

    Attributes:
        queues, speeds: of all together.
    """

    def __init__(self, entries: Iterable[WorkerEntry]) -> None:
        self._entries = list(entries)
        self._places = {entry.address: place for place, entry in enumerate(self._entries)}
        self._loads = [entry.load for entry in self._entries]
        self._queue_lengths = [entry.queue_length for entry in self._entries]
        self.queues = sum(self._queue_lengths)
        self.speeds = sum(entry.speed for entry in self._entries)

    def __getitem__(self, address: str) -> WorkerEntry:
        return self._entries[self._places[address]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[WorkerEntry]:
        """All of them."""
        return self._entries

    def told(self, entry: WorkerEntry) -> None:
        """A worker's queue has changed; one that is no candidate does not matter."""
        place = self._places.get(entry.address)
        if place is None:
            return
        self.queues += entry.queue_length - self._queue_lengths[place]
        self._queue_lengths[place] = entry.queue_length
        self._loads[place] = entry.load

    def idlest(self, chance: Random) -> WorkerEntry:
        """The worker with the least to do for its speed; any of them if several tie."""
        loads = self._loads
        least = min(loads)
        place = loads.index(least)
        for _ in range(chance.randrange(loads.count(least))):
            place = loads.index(least, place + 1)
        return self._entries[place]
