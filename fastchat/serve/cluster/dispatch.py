"""How a worker is chosen among those that serve a model. Pure: chance is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from fastchat.serve.cluster.registry import WorkerEntry

Dispatch = Callable[[Sequence[WorkerEntry], Random], WorkerEntry]


def lottery(entries: Sequence[WorkerEntry], chance: Random) -> WorkerEntry:
    """Any worker, the faster ones more often."""
    return chance.choices(entries, weights=[entry.speed for entry in entries])[0]


def shortest_queue(entries: Sequence[WorkerEntry], chance: Random) -> WorkerEntry:
    """The worker with the least to do for its speed; any of them if several tie."""
    loads = [entry.queue_length / entry.speed for entry in entries]
    least = min(loads)
    return chance.choice([e for e, load in zip(entries, loads, strict=True) if load == least])


DISPATCH_METHODS: Mapping[str, Dispatch] = {
    "lottery": lottery,
    "shortest_queue": shortest_queue,
}
