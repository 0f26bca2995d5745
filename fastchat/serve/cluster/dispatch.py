"""How a worker is chosen among those that serve a model. Pure: chance is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from fastchat.serve.cluster.candidates import Candidates, WorkerEntry

Dispatch = Callable[[Candidates, Sequence[str], Random], WorkerEntry]
"""From candidates, the hashes of the request's beginnings (the shortest first) and chance."""


def lottery(workers: Candidates, _: Sequence[str], chance: Random) -> WorkerEntry:
    """Any worker, the faster ones more often."""
    entries = workers.entries
    return chance.choices(entries, weights=[entry.speed for entry in entries])[0]


def shortest_queue(workers: Candidates, _: Sequence[str], chance: Random) -> WorkerEntry:
    """The worker with the least to do for its speed; any of them if several tie."""
    return workers.idlest(chance)


class PrefixDispatch:
    """The worker that has seen most of a request's beginning, unless it has too much to do.

    The longest beginning that somebody has seen counts, then shorter ones; of those who have seen
    it, the one with the least to do. It has too much to do if its load is above the mean of the
    others by more than `above` times that mean and `slack` requests, both times the share of the
    beginnings that it has seen. The mean of few others tells little, so both are larger then, by a
    factor of 1 + `few` / others. If all who have seen some of it have too much to do, the shortest
    queue decides.

    Args:
        remembered: beginnings to keep, those of late.
        homes: workers to keep for each beginning, those of late.
        above, slack, few: see above.
    """

    def __init__(
        self,
        *,
        remembered: int = 500_000,
        homes: int = 16,
        above: float = 0.25,
        slack: float = 1.5,
        few: float = 8.0,
    ) -> None:
        self._homes = Homes(remembered, homes)
        self._above = above
        self._slack = slack
        self._few = few

    def __call__(self, workers: Candidates, prefix: Sequence[str], chance: Random) -> WorkerEntry:
        """Chooses, and remembers what the chosen one has seen by then."""
        entry = self._known(workers, prefix, chance)
        if entry is None:
            entry = workers.idlest(chance)
        for beginning in prefix:
            self._homes.add(beginning, entry.address)
        return entry

    def _known(
        self, workers: Candidates, prefix: Sequence[str], chance: Random
    ) -> WorkerEntry | None:
        for place in range(len(prefix), 0, -1):
            homes = [
                workers[address]
                for address in self._homes.of(prefix[place - 1])
                if address in workers
            ]
            if not homes:
                continue
            least = min(home.load for home in homes)
            entry = chance.choice([home for home in homes if home.load == least])
            if self._fits(entry, workers, seen=place / len(prefix)):
                return entry
        return None

    def _fits(self, entry: WorkerEntry, workers: Candidates, *, seen: float) -> bool:
        others = len(workers) - 1
        if not others:
            return True
        mean = (workers.queues - entry.queue_length) / (workers.speeds - entry.speed)
        more = (self._above * mean + self._slack) * (1 + self._few / others)
        return entry.load <= mean + more * seen


class Homes:
    """Who has seen which beginning. What was not asked for in a while is forgotten.

    Beginnings lie in two halves: those that are noted go into the newer one, and when that is
    full the older one goes as a whole. That costs less than keeping each in its order.

    Args:
        remembered: beginnings in both halves.
        most: workers of one beginning.
    """

    def __init__(self, remembered: int, most: int) -> None:
        self._half = max(1, remembered // 2)
        self._most = most
        self._newer: dict[str, tuple[str, ...]] = {}
        self._older: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._newer.keys() | self._older.keys())

    def of(self, beginning: str) -> tuple[str, ...]:
        """Addresses, the newest last."""
        return self._newer.get(beginning) or self._older.get(beginning, ())

    def add(self, beginning: str, address: str) -> None:
        """Notes that a worker has seen a beginning."""
        homes = self.of(beginning)
        if not homes or homes[-1] != address:
            homes = (*(home for home in homes if home != address), address)[-self._most :]
        if beginning not in self._newer and len(self._newer) >= self._half:
            self._older, self._newer = self._newer, {}
        self._newer[beginning] = homes


DISPATCH_METHODS: Mapping[str, Callable[[], Dispatch]] = {
    "lottery": lambda: lottery,
    "prefix": PrefixDispatch,
    "shortest_queue": lambda: shortest_queue,
}
"""By name, what makes each; `prefix` has a memory of its own."""
