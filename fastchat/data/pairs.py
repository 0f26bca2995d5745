"""Preferences become trees: a prompt with two branches, the chosen answer and the rejected one.

    prompt <sep> ─┬─ chosen <eod>
                  └─ rejected <eod>

Prompt and answers are tokens as they are served. Each branch holds all of its answer, even
where both begin alike, so that the log probability of an answer is the sum over its branch.
Knows nothing of torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastchat.chat import ChatRenderer
from fastchat.data.building import BLOCK
from fastchat.data.dataset import ItemDataset, Items
from fastchat.data.item_file import ItemBlock, write_items
from fastchat.data.preferences import Preference, iter_preferences
from fastchat.data.row_cache import cached_items, digest
from fastchat.data.rows import IGNORED, LossMode, Row, RowBuilder, RowStats
from fastchat.data.sources import Source, weighted_order
from fastchat.data.tree import Tree, merge
from fastchat.errors import DataError

logger = logging.getLogger(__name__)


def rejected_start(tree: Tree) -> int:
    """The node that a pair's rejected answer begins at; the learned ones before are chosen."""
    ((start, _),) = tree.branches
    return start


@dataclass(frozen=True, slots=True)
class PairBuilder:
    """Builds the trees of preferences.

    A pair that is too long loses the oldest turns of its prompt, as many for both answers
    as the longer one needs.

    Attributes:
        renderer: the model's chat renderer.
        max_length: longest prompt with an answer, in tokens.
    """

    renderer: ChatRenderer
    max_length: int

    def tree(self, preference: Preference, stats: RowStats) -> Tree | None:
        """The tree of a preference; None where an answer does not fit, or both are the same.

        Args:
            preference: what to build it of.
            stats: where it is counted, as one sample of two rows.
        """
        stats.samples += 1
        texts = (preference.chosen, preference.rejected)
        answers = [self.renderer.answer_ids(text) for text in texts]
        if answers[0] == answers[1]:
            return None
        longer = len(answers[1]) > len(answers[0])
        rows = RowBuilder(self.renderer, LossMode.LAST_RESPONSE, self.max_length)
        row = rows.row(preference.conversation(texts[longer]), len(preference.prompt))
        if row is None:
            stats.too_long_rows += 1
            return None
        prompt = row.input_ids[: -len(answers[longer])]
        both = [
            Row(
                preference.id,
                prompt + answer,
                [IGNORED] * len(prompt) + answer,
                dropped_turns=row.dropped_turns,
            )
            for answer in answers
        ]
        tree = merge(both)
        for row in both:
            stats.add_row(row)
        stats.laid_out_tokens += len(tree)
        return tree

    def block(self, preferences: Iterable[Preference]) -> ItemBlock:
        """The trees of some preferences, and what became of these."""
        held = HeldPairs(preferences, self)
        return ItemBlock.of(held.trees, held.stats)


class HeldPairs:
    """Pairs in memory.

    Args:
        preferences: what to make them of.
        builder: makes them.

    Attributes:
        stats: what became of the preferences.
        lengths: (N,) tokens of each pair.
    """

    def __init__(self, preferences: Iterable[Preference], builder: PairBuilder) -> None:
        self.stats = RowStats()
        found = (builder.tree(preference, self.stats) for preference in preferences)
        self.trees = [tree for tree in found if tree is not None]
        self.lengths: NDArray[np.int64] = np.array([len(tree) for tree in self.trees], np.int64)

    def __len__(self) -> int:
        return len(self.trees)

    def __getitem__(self, index: int) -> Tree:
        """Pair number `index`."""
        return self.trees[index]


def read_pairs(
    sources: Sequence[Source],
    tokenizer: Any,
    renderer: ChatRenderer,
    max_length: int,
    seed: int = 0,
) -> ItemDataset:
    """The pairs of files of preferences, each as often as its weight says; logs the counts.

    Files of more than a block of preferences are tokenised once and kept on disk.

    Args:
        sources: the files.
        tokenizer: the model's.
        renderer: the model's chat renderer.
        max_length: longest prompt with an answer, in tokens.
        seed: draws which pairs a weight that is no whole number takes.

    Raises:
        DataError: a file cannot be used, or there is nothing to learn in any.
    """
    builder = PairBuilder(renderer, max_length)
    parts = [_read(Path(source.path), builder, tokenizer) for source in sources]
    for source, part in zip(sources, parts, strict=True):
        logger.info("%s: %s", source.path, summary(part.stats))
    order = weighted_order([len(part) for part in parts], [s.weight for s in sources], seed)
    if not len(order):
        stats = ItemDataset(parts).stats
        raise DataError(
            f"{', '.join(source.path for source in sources)} holds nothing to learn:"
            f" {summary(stats)}.",
            hint="Raise --model_max_length, or check that 'chosen' and 'rejected' differ.",
        )
    return ItemDataset(parts, order)


def _read(path: Path, builder: PairBuilder, tokenizer: Any) -> Items:
    preferences = iter_preferences(path)
    first = list(islice(preferences, BLOCK + 1))
    if len(first) <= BLOCK:
        return HeldPairs(first, builder)

    def write(target: Path) -> None:
        logger.info("tokenising %s", path)
        write_items(target, _blocks(builder, chain(first, preferences)))

    key = digest(path, tokenizer, builder.renderer, "preferences", builder.max_length)
    return cached_items(key, write)


def _blocks(builder: PairBuilder, preferences: Iterator[Preference]) -> Iterator[ItemBlock]:
    while chunk := list(islice(preferences, BLOCK)):
        yield builder.block(chunk)


def summary(stats: RowStats) -> str:
    """What became of preferences, in a sentence; what did not occur is left out."""
    pairs = stats.rows // 2
    parts = [
        f"{stats.samples} preferences -> {pairs} pairs",
        f"{stats.laid_out_tokens} tokens, {stats.learned_tokens} of them in answers",
    ]
    for count, what in (
        (stats.shortened_rows // 2, "pairs shortened by their oldest turns"),
        (stats.too_long_rows, "pairs left out: too long"),
        (stats.samples - pairs - stats.too_long_rows, "pairs left out: both answers the same"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return "; ".join(parts)
