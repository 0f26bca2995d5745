"""Which adapters requests may name, and who still uses one that is to go.

Lives on one event loop; knows nothing of matrices.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from fastchat.engine.network.adapters import Adapter
from fastchat.errors import RequestError

BASE = -1
"""The number of no adapter."""


class AdapterNames:
    """Loaded adapters by name; each has a number that is never given again."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._by_name: dict[str, int] = {}
        self._loaded: dict[int, Adapter] = {}
        self._users: Counter[int] = Counter()
        self._unused: dict[int, asyncio.Event] = {}

    @property
    def names(self) -> Sequence[str]:
        """Those that may be asked for."""
        return list(self._by_name)

    @property
    def loaded(self) -> Mapping[int, Adapter]:
        """All that are in use or may be."""
        return dict(self._loaded)

    def check_free(self, name: str) -> None:
        """Makes sure that a name can be given.

        Raises:
            RequestError: it is taken.
        """
        if name in self._by_name:
            raise RequestError(
                f"An adapter named {name} is loaded already.",
                hint="Unload it first, or choose another name.",
                param="name",
            )

    def number(self) -> int:
        """A number that no adapter has had."""
        return next(self._numbers)

    def add(self, name: str, number: int, adapter: Adapter) -> None:
        """Lets requests name an adapter."""
        self._loaded[number] = adapter
        self._by_name[name] = number

    def hide(self, name: str) -> int:
        """Lets no new request name an adapter.

        Raises:
            RequestError: there is none of that name.
        """
        number = self._number(name)
        del self._by_name[name]
        return number

    async def unused(self, number: int) -> None:
        """Waits until the last request that uses a hidden adapter is done."""
        if self._users[number]:
            await self._unused.setdefault(number, asyncio.Event()).wait()

    def drop(self, number: int) -> None:
        """Forgets an adapter."""
        self._loaded.pop(number, None)
        self._unused.pop(number, None)

    @contextmanager
    def used(self, name: str | None) -> Generator[int, None, None]:
        """The number to compute with; the adapter stays as long as this is open.

        Raises:
            RequestError: there is none of that name.
        """
        number = BASE if name is None else self._number(name)
        self._users[number] += 1
        try:
            yield number
        finally:
            self._users[number] -= 1
            if not self._users[number] and number in self._unused:
                self._unused[number].set()

    def _number(self, name: str) -> int:
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "none"
            raise RequestError(
                f"No adapter named {name} is loaded; loaded are: {known}.", param="model"
            )
        return self._by_name[name]
