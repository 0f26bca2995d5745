"""The table of workers. Pure: the time is an argument, and nothing is sent anywhere."""

from __future__ import annotations

import math
from collections.abc import Collection

from fastchat.protocol.worker import WorkerStatus
from fastchat.serve.cluster.candidates import Candidates, WorkerEntry


class Registry:
    """Workers by address.

    Requests come far more often than workers do, so what they ask for is kept between changes:
    the candidates of each model, and a time before which nobody can have fallen silent.

    Args:
        expiration_s: workers that promised heart-beats and gave none for so long are gone.
        late_s: prompt workers rank last after so long a silence.
    """

    def __init__(self, expiration_s: float, *, late_s: float = 5.0) -> None:
        self._expiration_s = expiration_s
        self._late_s = late_s
        self._workers: dict[str, WorkerEntry] = {}
        self._candidates: dict[str, Candidates] = {}
        self._due = math.inf

    def __len__(self) -> int:
        return len(self._workers)

    def register(
        self,
        address: str,
        status: WorkerStatus,
        *,
        now: float,
        check_heart_beat: bool = True,
        multimodal: bool = False,
    ) -> None:
        """Adds a worker, or replaces what is known of it."""
        self._workers[address] = WorkerEntry(
            address=address,
            model_names=list(status.model_names),
            speed=status.speed,
            queue_length=status.queue_length,
            check_heart_beat=check_heart_beat,
            last_heart_beat=now,
            multimodal=multimodal,
        )
        self._candidates.clear()
        if check_heart_beat:
            self._due = min(self._due, now + self._expiration_s)

    def update(self, address: str, status: WorkerStatus, *, now: float) -> None:
        """Takes over a worker's own account of itself; unknown workers stay unknown."""
        entry = self._workers.get(address)
        if entry is None:
            return
        self.register(
            address,
            status,
            now=now,
            check_heart_beat=entry.check_heart_beat,
            multimodal=entry.multimodal,
        )

    def heart_beat(self, address: str, queue_length: int, *, now: float) -> bool:
        """Notes a sign of life. Returns whether the worker is known."""
        entry = self._workers.get(address)
        if entry is None:
            return False
        self._tell(entry, queue_length)
        entry.prompt = now - entry.last_heart_beat < self._late_s
        entry.last_heart_beat = now
        if entry.prompt:
            self._due = min(self._due, now + self._late_s)
        if entry.suspect:
            entry.suspect = False
            self._candidates.clear()
        return True

    def sent(self, address: str) -> None:
        """Notes that a worker was given a request; what it tells later counts instead."""
        entry = self._workers[address]
        self._tell(entry, entry.queue_length + 1)

    def _tell(self, entry: WorkerEntry, queue_length: int) -> None:
        entry.queue_length = queue_length
        for model in entry.model_names:
            if (candidates := self._candidates.get(model)) is not None:
                candidates.told(entry)

    def remove(self, address: str) -> bool:
        """Forgets a worker. Returns whether it was known."""
        self._candidates.clear()
        return self._workers.pop(address, None) is not None

    def expire(self, *, now: float) -> list[str]:
        """Removes the workers that have fallen silent. Returns their addresses."""
        if now <= self._due:
            return []
        for entry in self._workers.values():
            if entry.prompt and now - entry.last_heart_beat > self._late_s:
                entry.suspect = True
        silent = [
            address
            for address, entry in self._workers.items()
            if entry.check_heart_beat and now - entry.last_heart_beat > self._expiration_s
        ]
        for address in silent:
            del self._workers[address]
        self._candidates.clear()
        self._due = min(map(self._patience, self._workers.values()), default=math.inf)
        return silent

    def _patience(self, entry: WorkerEntry) -> float:
        """Until when a worker may say nothing without anything to be done about it."""
        if entry.prompt and not entry.suspect:
            return entry.last_heart_beat + min(self._late_s, self._expiration_s)
        if entry.check_heart_beat:
            return entry.last_heart_beat + self._expiration_s
        return math.inf

    def missed(self, address: str) -> None:
        """Notes that a worker could not be reached.

        One that sends heart-beats ranks last until its next one; one that does not is
        removed, for nothing else would ever tell that it is gone.
        """
        entry = self._workers.get(address)
        if entry is None:
            return
        self._candidates.clear()
        if entry.check_heart_beat:
            entry.suspect = True
        else:
            del self._workers[address]

    def addresses(self) -> list[str]:
        """The workers, in order of registration."""
        return list(self._workers)

    def entries(self) -> list[WorkerEntry]:
        """The workers with what is known of them."""
        return list(self._workers.values())

    def models(self, *, multimodal: bool | None = None) -> list[str]:
        """Names of the models that are served, sorted; of one kind, if told which."""
        return sorted(
            {
                name
                for entry in self._workers.values()
                if multimodal is None or entry.multimodal == multimodal
                for name in entry.model_names
            }
        )

    def serving(self, model: str, *, tried: Collection[str] = ()) -> Candidates:
        """The workers to choose from for a model: those that can be reached, if any can.

        Args:
            model: its name.
            tried: addresses that are no choice unless nothing else is left.
        """
        found = None if tried else self._candidates.get(model)
        if found is None:
            found = self._looked_up(model, tried)
            if found and not tried:
                self._candidates[model] = found
        return found

    def _looked_up(self, model: str, tried: Collection[str]) -> Candidates:
        workers = [entry for entry in self._workers.values() if model in entry.model_names]
        untried = [entry for entry in workers if entry.address not in tried] or workers
        return Candidates([entry for entry in untried if not entry.suspect] or untried)

    def total(self) -> WorkerStatus:
        """All workers as if they were one."""
        entries = self._workers.values()
        return WorkerStatus(
            model_names=self.models(),
            speed=sum(entry.speed for entry in entries) or 1,
            queue_length=sum(entry.queue_length for entry in entries),
        )
