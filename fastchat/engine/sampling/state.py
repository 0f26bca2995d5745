"""What the sampler keeps of one request, and what that changes about its next logits.

Everything is kept as sparse ids and values that grow with each token, so a token costs the
same however long the text is. Knows no torch. Numpy only as growing storage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence, Set
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastchat.engine.base import SamplingParams
from fastchat.engine.sampling.random import WORD, fresh_seed

NO_IDS: NDArray[np.int32] = np.zeros(0, np.int32)
NO_VALUES: NDArray[np.float32] = np.zeros(0, np.float32)


class Matcher(Protocol):
    """Which tokens may follow in an answer of a given form; see `fastchat.engine.structured`."""

    @property
    def words(self) -> int:
        """Words of 32 bits in a mask."""
        ...

    @property
    def complete(self) -> bool:
        """Whether nothing but an end token may follow."""
        ...

    def accept(self, token: int) -> bool:
        """Takes a token that joined the answer; returns whether it fits."""
        ...

    def fill(self, mask: NDArray[np.int32], assumed: Sequence[int] = ()) -> bool:
        """Writes a bit for each token that may follow; returns whether only end tokens may."""
        ...


class Row(NamedTuple):
    """One place whose next token is wanted.

    Attributes:
        state: of the request.
        assumed: tokens that are taken to be accepted before this place.
    """

    state: RowState
    assumed: tuple[int, ...] = ()


class Edits(NamedTuple):
    """Sparse changes of one row of logits.

    Attributes:
        seen: tokens that the repetition penalty is for, each once.
        shifted: tokens whose logits are shifted by `shifts`; a token may come twice.
        shifts: as many values.
        banned: tokens that are ruled out.
    """

    seen: NDArray[np.int32] = NO_IDS
    shifted: NDArray[np.int32] = NO_IDS
    shifts: NDArray[np.float32] = NO_VALUES
    banned: Sequence[int] = ()


NO_EDITS = Edits()

_NONE: frozenset[int] = frozenset()


class RowState:
    """One request as the sampler knows it.

    Args:
        params: checked sampling values.
        prompt_ids: the prompt, which repetition penalty and no_repeat_ngram look at too.
        end_ids: all ids that end this request.
        matcher: keeps the answer in the form that `params.grammar` asks for.

    Attributes:
        seed: what its random numbers come from.
        count: tokens accepted so far.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int],
        *,
        end_ids: Collection[int] = (),
        matcher: Matcher | None = None,
    ) -> None:
        self.params = params
        self.matcher = matcher
        self.end_ids = tuple(sorted(end_ids))
        self.seed = fresh_seed() if params.seed is None else params.seed & WORD
        self.count = 0
        self._seen = _Ids(prompt_ids) if params.repetition_penalty != 1.0 else None
        self._shifts = _Shifts(params) if _shifts_logits(params) else None
        self._runs = _Runs(params.no_repeat_ngram, prompt_ids) if params.no_repeat_ngram else None
        self._plain = self._seen is None and self._shifts is None and self._runs is None

    @property
    def complete(self) -> bool:
        """Whether the grammar is finished, so that only an end token could follow."""
        return self.matcher is not None and self.matcher.complete

    def accept(self, token: int) -> None:
        """Takes a token that joined the answer."""
        self.count += 1
        if self._seen is not None:
            self._seen.add(token)
        if self._shifts is not None:
            self._shifts.add(token)
        if self._runs is not None:
            self._runs.add(token)
        if self.matcher is not None:
            self.matcher.accept(token)

    def early(self, ahead: int) -> bool:
        """Whether the answer may not end yet after `ahead` more tokens."""
        return self.count + ahead < self.params.min_new_tokens

    def edits(self, assumed: Sequence[int] = (), *, ending: bool = False) -> Edits:
        """What is changed about the logits, what the grammar rules out apart.

        Args:
            assumed: tokens taken to be accepted before.
            ending: the grammar leaves nothing but the end, so that stays allowed.
        """
        early = self.early(len(assumed)) and not ending
        if self._plain:
            return Edits(banned=self.end_ids) if early and self.end_ids else NO_EDITS
        seen = NO_IDS if self._seen is None else self._seen.with_more(assumed)
        shifted, shifts = (
            (NO_IDS, NO_VALUES) if self._shifts is None else self._shifts.with_more(assumed)
        )
        banned: tuple[int, ...] = self.end_ids if early else ()
        if self._runs is not None:
            # An answer may end at any time, whatever ran before its last end.
            banned += tuple(t for t in self._runs.following(assumed) if t not in self.end_ids)
        return Edits(seen, shifted, shifts, banned)


def _shifts_logits(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.presence_penalty or params.frequency_penalty)


class _Ids:
    """A growing set of ids as an array."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._known = set(ids)
        self._size = len(self._known)
        self._ids = np.fromiter(self._known, np.int32, self._size)

    def add(self, token: int) -> None:
        if token in self._known:
            return
        self._known.add(token)
        self._ids = _with_room(self._ids, self._size)
        self._ids[self._size] = token
        self._size += 1

    def with_more(self, tokens: Sequence[int]) -> NDArray[np.int32]:
        held = self._ids[: self._size]
        new = set(tokens) - self._known
        return np.append(held, np.fromiter(new, np.int32, len(new))) if new else held


class _Shifts:
    """Values added to logits: the bias, and what the tokens generated so far take away."""

    def __init__(self, params: SamplingParams) -> None:
        bias = params.logit_bias
        self._presence, self._frequency = params.presence_penalty, params.frequency_penalty
        self._places = {token: place for place, token in enumerate(bias)}
        self._generated: set[int] = set()
        self._ids = np.fromiter(bias, np.int32, len(bias))
        self._values = np.fromiter(bias.values(), np.float32, len(bias))

    def add(self, token: int) -> None:
        if not (self._presence or self._frequency):
            return
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = len(self._places)
            self._ids = _with_room(self._ids, place)
            self._values = _with_room(self._values, place)
            self._ids[place], self._values[place] = token, 0.0
        first = token not in self._generated
        self._generated.add(token)
        self._values[place] -= self._frequency + (self._presence if first else 0.0)

    def with_more(self, tokens: Sequence[int]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        ids, values = self._ids[: len(self._places)], self._values[: len(self._places)]
        if not tokens or not (self._presence or self._frequency):
            return ids, values
        known = set(self._generated)
        amounts: list[float] = []
        for token in tokens:
            amounts.append(-self._frequency - (0.0 if token in known else self._presence))
            known.add(token)
        return (
            np.append(ids, np.array(tokens, np.int32)),
            np.append(values, np.array(amounts, np.float32)),
        )


class _Runs:
    """All runs of n tokens so far, by their first n - 1."""

    def __init__(self, size: int, tokens: Sequence[int]) -> None:
        self._next: dict[tuple[int, ...], set[int]] = {}
        self._last: deque[int] = deque(maxlen=size - 1)
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        if len(self._last) == self._last.maxlen:
            self._next.setdefault(tuple(self._last), set()).add(token)
        self._last.append(token)

    def following(self, assumed: Sequence[int]) -> Set[int]:
        """Tokens that would complete a run that is there already, after the assumed ones."""
        if not assumed:
            return self._next.get(tuple(self._last), _NONE)
        last = self._last.copy()
        more: dict[tuple[int, ...], set[int]] = {}
        for token in assumed:
            if len(last) == last.maxlen:
                more.setdefault(tuple(last), set()).add(token)
            last.append(token)
        key = tuple(last)
        return self._next.get(key, _NONE) | more.get(key, _NONE)


def _with_room(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array, or a larger copy, with room for one more than `size`."""
    if size < len(array):
        return array
    larger = np.empty(max(16, 2 * size), array.dtype)
    larger[:size] = array[:size]
    return larger
