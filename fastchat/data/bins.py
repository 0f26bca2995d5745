"""First-fit packing of items into bins of a token budget. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastchat.data.dataset import ItemDataset
from fastchat.data.tree import Tree

_OPEN = 64
"""Bins that still take items; a longer search fills them hardly better."""


def first_fit(lengths: NDArray[np.integer], budget: int, seed: int = 0) -> list[list[int]]:
    """Puts every item into the first open bin that has room for it, in a random order.

    Args:
        lengths: (N,) tokens of each item.
        budget: most tokens of a bin. An item beyond it gets a bin of its own.
        seed: draws the order, so that a bin is a random sample of the data.

    Returns:
        The bins, each a list of items. Every item is in one bin.
    """
    bins: list[list[int]] = []
    open_bins: list[list[int]] = []
    room = np.zeros(_OPEN, np.int64)
    for index in np.random.default_rng(seed).permutation(len(lengths)).tolist():
        length = int(lengths[index])
        fits = room[: len(open_bins)] >= length
        place = int(fits.argmax()) if fits.any() else len(open_bins)
        if place == len(open_bins):
            if place == _OPEN:
                place = int(room.argmin())
                bins.append(open_bins[place])
                open_bins[place] = []
            else:
                open_bins.append([])
            room[place] = max(budget, length)
        open_bins[place].append(index)
        room[place] -= length
    return bins + open_bins


class Bins:
    """A data set in bins, each the list of its items.

    Args:
        items: the data set.
        bins: which items are in each bin.

    Attributes:
        stats: what became of the samples.
        lengths: tokens of each bin.
    """

    def __init__(self, items: ItemDataset, bins: list[list[int]]) -> None:
        self._items = items
        self._bins = bins
        self.stats = items.stats
        self.lengths = np.array([items.lengths[members].sum() for members in bins], np.int64)

    def __len__(self) -> int:
        return len(self._bins)

    def __getitem__(self, index: int) -> list[Tree]:
        """The items of bin number `index`."""
        return [self._items[member] for member in self._bins[index]]
