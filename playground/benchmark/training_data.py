"""Conversations of random token ids with the lengths that the training benchmarks ask for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastchat.data.rows import IGNORED, Row
from fastchat.data.tree import Tree, merge

_WORDS = 77_000  # ids of plain text; what follows them in the vocabulary is rarely seen
_SEP, _EOD, _TURN = 77_187, 77_185, 77_186


@dataclass(frozen=True, slots=True)
class Conversations:
    """Data of one kind.

    Attributes:
        name: of the kind.
        items: for each conversation the rows that split mode makes of it.
    """

    name: str
    items: list[list[Row]]

    def trees(self) -> list[Tree]:
        """One tree a conversation."""
        return [merge(rows) for rows in self.items]

    @property
    def learned_a_row(self) -> float:
        """Mean number of learned tokens."""
        rows = [row for rows in self.items for row in rows]
        return sum(row.learned for row in rows) / len(rows)

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(len(row.input_ids) for rows in self.items for row in rows)

    @property
    def tokens_a_row(self) -> float:
        """Mean length."""
        return self.tokens / sum(map(len, self.items))


def single_turn(
    count: int, *, mean: float = 120, learned: float = 0.65, seed: int = 0
) -> Conversations:
    """Questions with one answer, alpaca-like: gamma-distributed lengths."""
    random = np.random.default_rng(seed)
    items = []
    for number in range(count):
        length = int(np.clip(random.gamma(3.0, mean / 3.0), 12, 1000))
        answer = max(1, round(learned * length) - 1)
        items.append(_rows(str(number), random, [(max(1, length - answer - 2), answer)]))
    return Conversations("single-turn", items)


def multi_turn(
    count: int, turns: int, *, mean: float, limit: int = 1024, seed: int = 0
) -> Conversations:
    """Conversations of `turns` answers, messages of `mean` tokens, none longer than `limit`."""
    random = np.random.default_rng(seed)
    items = []
    while len(items) < count:
        sizes = np.clip(random.gamma(3.0, mean / 3.0, (turns, 2)), 4, None).astype(int)
        if sizes.sum() + 2 * turns <= limit:
            pairs = [(int(question), int(answer)) for question, answer in sizes]
            items.append(_rows(str(len(items)), random, pairs))
    return Conversations(f"{turns}-turn", items)


def _rows(name: str, random: np.random.Generator, turns: list[tuple[int, int]]) -> list[Row]:
    history: list[int] = []
    rows = []
    for question, answer in turns:
        asked = random.integers(0, _WORDS, question).tolist()
        answered = random.integers(0, _WORDS, answer).tolist()
        prompt = [*history, *asked, _SEP]
        learned = [*answered, _EOD]
        rows.append(Row(name, prompt + learned, [IGNORED] * len(prompt) + learned))
        history += [*asked, _TURN, *answered, _TURN]
    return rows
