"""How a worker is chosen among those that serve a model. Pure: chance is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from fastchat.serve.cluster.registry import WorkerEntry

Dispatch = Callable[[Sequence[WorkerEntry], Sequence[str], Random], WorkerEntry]
"""From candidates, the hashes of the request's beginnings (the shortest first) and chance."""


def lottery(entries: Sequence[WorkerEntry], _: Sequence[str], chance: Random) -> WorkerEntry:
    """Any worker, the faster ones more often."""
    return chance.choices(entries, weights=[entry.speed for entry in entries])[0]


def shortest_queue(entries: Sequence[WorkerEntry], _: Sequence[str], chance: Random) -> WorkerEntry:
    """The worker with the least to do for its speed; any of them if several tie."""
    loads = [entry.queue_length / entry.speed for entry in entries]
    least = min(loads)
    return chance.choice([e for e, load in zip(entries, loads, strict=True) if load == least])


class PrefixDispatch:
    """The worker that has seen most of a request's beginning, unless it has too much to do.

    Such a worker is passed over if its load is more than `slack` requests above twice the
    least one. Without one, the shortest queue decides.

    Args:
        remembered: beginnings to keep, those of late.
        slack: see above.
    """

    def __init__(self, *, remembered: int = 100_000, slack: float = 4.0) -> None:
        self._seen: OrderedDict[str, str] = OrderedDict()
        self._remembered = remembered
        self._slack = slack

    def __call__(
        self, entries: Sequence[WorkerEntry], prefix: Sequence[str], chance: Random
    ) -> WorkerEntry:
        """Chooses, and remembers what the chosen one has seen by then."""
        entry = self._known(entries, prefix) or shortest_queue(entries, prefix, chance)
        for beginning in prefix:
            self._seen[beginning] = entry.address
            self._seen.move_to_end(beginning)
        while len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        return entry

    def _known(self, entries: Sequence[WorkerEntry], prefix: Sequence[str]) -> WorkerEntry | None:
        by_address = {entry.address: entry for entry in entries}
        least = min(entry.queue_length / entry.speed for entry in entries)
        for beginning in reversed(prefix):
            entry = by_address.get(self._seen.get(beginning, ""))
            if entry is not None:
                fits = entry.queue_length / entry.speed <= 2 * least + self._slack
                return entry if fits else None
        return None


DISPATCH_METHODS: Mapping[str, Callable[[], Dispatch]] = {
    "lottery": lambda: lottery,
    "prefix": PrefixDispatch,
    "shortest_queue": lambda: shortest_queue,
}
"""By name, what makes each; `prefix` has a memory of its own."""
