"""Finds stop strings in text that arrives in pieces. Pure: knows nothing of tokens or models."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


class StopMatcher:
    """Releases text as soon as it can no longer be part of a stop string.

    The first stop string to be complete ends the text (of several at once, the longest);
    what stands before it is released, the stop string itself never is. A character costs the
    same however many stop strings there are and however long they are.

    Args:
        stops: stop strings; empty ones are ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = sorted({stop for stop in stops if stop})
        self._place = self._start = _Place(0, 0, len(self._stops), None)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes new text; returns what is certain not to belong to a stop string."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        place = self._place
        for index, character in enumerate(text, start=1):
            place = place.after.get(character) or self._advance(place, character)
            if place.stop:
                self.stopped = True
                whole = self._held + text[:index]
                self._held = ""
                return whole[: len(whole) - place.stop]
        self._place = place
        whole = self._held + text
        sure = len(whole) - place.size
        self._held = whole[sure:]
        return whole[:sure]

    def finish(self) -> str:
        """The text held back, when no more will come."""
        held, self._held = self._held, ""
        return held

    def _advance(self, place: _Place, character: str) -> _Place:
        """Where a character leads that has not followed here before."""
        shorter: _Place | None = place
        without: list[_Place] = []
        while shorter is not None and character not in shorter.after:
            without.append(shorter)
            shorter = shorter.shorter
        target = self._start if shorter is None else shorter.after[character]
        for each in reversed(without):
            target = each.after[character] = self._longer(each, character, target)
        return target

    def _longer(self, place: _Place, character: str, otherwise: _Place) -> _Place:
        """The beginning of a stop string that is one character longer, if there is one."""
        stops, size = self._stops, place.size

        def following(stop: str) -> str:
            return stop[size : size + 1]

        low = bisect_left(stops, character, place.low, place.high, key=following)
        high = bisect_right(stops, character, low, place.high, key=following)
        if low == high:
            return otherwise
        longer = _Place(size + 1, low, high, otherwise)
        longer.stop = size + 1 if len(stops[low]) == size + 1 else otherwise.stop
        return longer


class _Place:
    """How much of which stop strings the end of the text so far could begin.

    The automaton of Aho and Corasick (1975), made as far as the text needs it.

    Attributes:
        size: characters at the end of the text that begin stop strings; 0 is none.
        low, high: those stop strings, among the sorted ones.
        shorter: the next shorter end of the text that begins some too; None at size 0.
        stop: length of the longest stop string that ends here, 0 if none does.
        after: where each character that followed led.
    """

    __slots__ = ("after", "high", "low", "shorter", "size", "stop")

    def __init__(self, size: int, low: int, high: int, shorter: _Place | None) -> None:
        self.size = size
        self.low = low
        self.high = high
        self.shorter = shorter
        self.stop = 0
        self.after: dict[str, _Place] = {}
