"""The items of data files as one sequence of trees.

Torch's loaders take it as it is, though it imports no torch. Knows nothing of batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastchat.chat import ChatRenderer
from fastchat.data.building import BLOCK, build_blocks, build_trees
from fastchat.data.item_file import write_items
from fastchat.data.reader import iter_samples
from fastchat.data.row_cache import cached_items, digest
from fastchat.data.rows import LossMode, RowBuilder, RowStats
from fastchat.data.sample import Sample
from fastchat.data.sources import Source, weighted_order
from fastchat.data.tree import Tree
from fastchat.errors import DataError

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]


class Items(Protocol):
    """The trees of one file."""

    stats: RowStats

    @property
    def lengths(self) -> Any:
        """(N,) tokens of each item."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tree: ...


class HeldItems:
    """Items in memory: their trees, or the conversations to build them of again.

    Args:
        samples: the conversations.
        builder: builds their rows.
        lazy: keep the conversations only; spend time instead of memory.
    """

    def __init__(self, samples: Iterable[Sample], builder: RowBuilder, *, lazy: bool) -> None:
        self.stats = RowStats()
        self._builder = builder
        self._held: list[Sample | Tree] = []
        lengths = []
        for sample, _, tree in build_trees(builder, samples, self.stats):
            self._held.append(sample if lazy else tree)
            lengths.append(len(tree))
        self.lengths = np.array(lengths, np.int64)

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> Tree:
        """Item number `index`."""
        held = self._held[index]
        if isinstance(held, Tree):
            return held
        ((_, _, tree),) = build_trees(self._builder, [held], RowStats())  # it fitted once
        return tree


class ItemDataset:
    """Items of one or more files, each conversation one item.

    Args:
        parts: the files' items.
        order: (N,) which of them, counted through all files; each once, in order, if None.

    Attributes:
        stats: what became of all files' samples.
        lengths: (N,) tokens of each item.
    """

    def __init__(self, parts: Sequence[Items], order: Ints | None = None) -> None:
        self.stats = RowStats()
        for part in parts:
            self.stats.add(part.stats)
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self._order = np.arange(self._starts[-1]) if order is None else order
        self.lengths: Ints = np.concatenate([part.lengths for part in parts])[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Tree:
        """Item number `index`."""
        place = int(self._order[index])
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._parts[part][place - int(self._starts[part])]

    def hold_out(self, share: float, seed: int) -> tuple[ItemDataset, ItemDataset]:
        """The items but for a random share of them, and that share: one item at least.

        An item that is read several times an epoch goes to one side with all its copies, and
        is held out once.

        Raises:
            DataError: nothing would be left.
        """
        items = np.unique(self._order)
        if len(items) < 2:
            raise DataError(
                f"{len(items)} conversation is too little to hold a share of {share} out of.",
                hint="Give --eval_ratio 0, or --eval_data_path.",
            )
        count = min(len(items) - 1, max(1, round(share * len(items))))
        out = np.sort(np.random.default_rng(seed).permutation(items)[:count])
        left = self._order[~np.isin(self._order, out)]
        return ItemDataset(self._parts, left), ItemDataset(self._parts, out)


class ItemReader:
    """Reads data files for a model and a mode.

    Args:
        tokenizer: the model's.
        renderer: the model's chat renderer.
        mode: which answers are learned.
        max_length: longest row, in tokens.
    """

    def __init__(
        self, tokenizer: Any, renderer: ChatRenderer, mode: LossMode, max_length: int
    ) -> None:
        self.builder = row_builder(tokenizer, renderer, mode, max_length)
        self._made_of = (tokenizer, renderer, mode.value, max_length)

    def read(self, sources: Sequence[Source], *, lazy: bool = False, seed: int = 0) -> ItemDataset:
        """The items of files, each as often as its weight says; logs the counts.

        Files of more than a block of samples are tokenised once and kept on disk.

        Args:
            sources: the files.
            lazy: hold conversations in memory and tokenise them when they are needed.
            seed: draws which items a weight that is no whole number takes.

        Raises:
            DataError: a file cannot be used, or there is nothing to learn in any.
        """
        parts = [self._items(Path(source.path), lazy) for source in sources]
        for source, part in zip(sources, parts, strict=True):
            logger.info("%s: %s", source.path, part.stats)
        if not any(map(len, parts)):
            stats = ItemDataset(parts).stats
            names = ", ".join(str(source.path) for source in sources)
            raise DataError(
                f"{names} holds nothing to learn: {stats}.",
                hint="Raise --model_max_length, or check that 'gpt' turns answer 'human' ones.",
            )
        weights = [source.weight for source in sources]
        if all(weight == 1 for weight in weights):
            return ItemDataset(parts)
        order = weighted_order([len(part) for part in parts], weights, seed)
        if not len(order):
            raise DataError(
                f"Weights of {', '.join(map(str, weights))} take none of"
                f" {sum(map(len, parts))} conversations.",
                hint="Raise --data_weights.",
            )
        return ItemDataset(parts, order)

    def _items(self, path: Path, lazy: bool) -> Items:
        samples = iter_samples(path)
        if lazy:
            return HeldItems(samples, self.builder, lazy=True)
        first = list(islice(samples, BLOCK + 1))
        if len(first) <= BLOCK:
            return HeldItems(first, self.builder, lazy=False)
        tokenizer, renderer, *settings = self._made_of

        def write(target: Path) -> None:
            logger.info("tokenising %s", path)
            write_items(target, build_blocks(self.builder, chain(first, samples)))

        return cached_items(digest(path, tokenizer, renderer, *settings), write)


def row_builder(
    tokenizer: Any, renderer: ChatRenderer, mode: LossMode, max_length: int
) -> RowBuilder:
    """A builder for a model's tokenizer and chat renderer."""
    from fastchat.model.tokenization_yuan import YuanTokenizer

    encode_offsets = tokenizer.encode_offsets if isinstance(tokenizer, YuanTokenizer) else None
    return RowBuilder(renderer, mode, max_length, encode_offsets)
