"""A conversation as it lies in a file: its turns can change while all else about it stays.

The data tools work on these. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastchat.data.formats import (
    ROLES,
    SHAREGPT,
    Layout,
    Place,
    Turn,
    is_instruction,
    layout_of,
    system_of,
    turns_of,
)
from fastchat.data.reader import check_order

Round = tuple[Turn, Turn]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class Talk:
    """An item that lists its turns, read but not checked for their order.

    Attributes:
        item: what stands in the file.
        layout: the names of its keys.
        turns: its turns.
        place: where it stands, for errors.
    """

    item: dict[str, Any]
    layout: Layout
    turns: list[Turn]
    place: Place

    @classmethod
    def of(cls, item: dict[str, Any], place: Place) -> Talk:
        """The talk that an item is.

        Raises:
            DataError: it does not list its turns, or one of them is not as it should be.
        """
        if is_instruction(item):
            raise place.error(
                "is of Alpaca's form and does not list its turns.",
                hint="Convert the file first: python -m fastchat.data.convert_alpaca.",
            )
        system_of(item, place)
        return cls(item, layout_of(item) or SHAREGPT, turns_of(item, place), place)

    @property
    def system(self) -> str | None:
        """The system text that stands in a field of its own."""
        return system_of(self.item, self.place)

    @property
    def text(self) -> str:
        """All turns' texts, one to a line."""
        return "\n".join(turn.text for turn in self.turns)

    def rounds(self) -> tuple[list[Turn], list[Round]]:
        """The system turn, if there is one, and the rounds.

        A turn before the first question and a last question without an answer are in none.

        Raises:
            DataError: questions and answers do not take turns.
        """
        turns = self.turns
        system = [turn for turn in turns[:1] if turn.role == "system"]
        turns = turns[len(system) :]
        if turns and ROLES[turns[0].role] == "assistant":
            turns = turns[1:]
        check_order(self.item, turns, self.place)
        return system, list(zip(turns[::2], turns[1::2], strict=False))

    def with_turns(self, turns: Iterable[Turn]) -> dict[str, Any]:
        """The item with some of its turns, perhaps with other texts; all else as it was."""
        return {**self.item, self.layout.turns: [self._raw(turn) for turn in turns]}

    def _raw(self, turn: Turn) -> dict[str, Any]:
        old: dict[str, Any] = self.item[self.layout.turns][turn.number - 1]
        same = turn.text == self.turns[turn.number - 1].text
        return old if same else {**old, self.layout.text: turn.text}


def unrolled(rounds: Iterable[Round]) -> list[Turn]:
    """The turns of rounds, in order."""
    return [turn for pair in rounds for turn in pair]
