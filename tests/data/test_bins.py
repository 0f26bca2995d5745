"""Bins hold every item once, within their budget, and are well filled."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.chat import YuanChatRenderer
from fastchat.data.bins import Bins, first_fit
from fastchat.data.dataset import HeldItems, ItemDataset, row_builder
from fastchat.data.rows import LossMode
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.talks import same_tree, talk

LENGTHS = st.lists(st.integers(1, 50), max_size=300).map(np.array)


@settings(deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 120), seed=st.integers(0, 2**31))
def test_every_item_is_in_one_bin_and_no_bin_of_several_is_over_its_budget(
    lengths: np.ndarray, budget: int, seed: int
) -> None:
    bins = first_fit(lengths, budget, seed)
    assert sorted(item for members in bins for item in members) == list(range(len(lengths)))
    assert all(members for members in bins)
    assert all(lengths[members].sum() <= budget or len(members) == 1 for members in bins)
    assert bins == first_fit(lengths, budget, seed)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60).map(np.array))
def test_no_two_bins_could_be_one(lengths: np.ndarray) -> None:
    loads = sorted(lengths[members].sum() for members in first_fit(lengths, 50))
    assert len(loads) == 1 or loads[0] + loads[1] > 50


def test_another_seed_fills_other_bins() -> None:
    lengths = np.arange(1, 40)
    assert first_fit(lengths, 60, 1) != first_fit(lengths, 60, 2)


def test_a_data_set_of_bins(tokenizer: YuanTokenizer, renderer: YuanChatRenderer) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 512)
    samples = [talk("a" * n, "b" * n, name=str(n)) for n in range(1, 8)]
    items = ItemDataset([HeldItems(samples, builder, lazy=False)])
    bins = Bins(items, [[3, 0], [1, 2, 4, 5, 6]])
    assert len(bins) == 2
    assert [tree.item_id for tree in bins[0]] == ["4", "1"]
    assert all(same_tree(tree, items[n]) for tree, n in zip(bins[1], [1, 2, 4, 5, 6], strict=True))
    assert bins.lengths.tolist() == [sum(map(len, bins[0])), sum(map(len, bins[1]))]
    assert bins.stats == items.stats
