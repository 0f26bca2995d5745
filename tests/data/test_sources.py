"""Weights say how often samples are read, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data.sources import Source, parse_sources, weighted_order
from fastchat.errors import SettingsError

FILES = st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 4)), min_size=1, max_size=4)


def test_weights_belong_to_files_in_order() -> None:
    assert parse_sources("a.json") == [Source("a.json", 1.0)]
    assert parse_sources(["a", "b"], [2, 0.5]) == [Source("a", 2.0), Source("b", 0.5)]


@pytest.mark.parametrize(
    ("paths", "weights", "complaint"),
    [
        ([], None, "No data file"),
        ("", None, "No data file"),
        (["a", "b"], [1.0], "2 data files have 1 weights"),
        ("a", [0.0], "a has the weight 0.0"),
        ("a", [-1.0], "a has the weight -1.0"),
        ("a", [float("nan")], "a has the weight nan"),
        ("a", [float("inf")], "a has the weight inf"),
    ],
)
def test_weights_that_make_no_sense(paths, weights, complaint) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse_sources(paths, weights)


@given(files=FILES, seed=st.integers(0, 2**32))
def test_every_file_gives_its_share(files: list[tuple[int, float]], seed: int) -> None:
    counts, weights = [count for count, _ in files], [weight for _, weight in files]
    order = weighted_order(counts, weights, seed)
    assert order.dtype == np.int64
    times = np.bincount(order, minlength=sum(counts))
    offset = 0
    for count, weight in files:
        part = times[offset : offset + count]
        assert part.sum() == round(weight * count)
        assert all(int(weight) <= n <= int(weight) + 1 for n in part)
        offset += count
    assert (weighted_order(counts, weights, seed) == order).all()


def test_weight_one_is_the_file_itself() -> None:
    assert weighted_order([3, 2], [1, 1], 0).tolist() == [0, 1, 2, 3, 4]


def test_a_seed_draws_others_and_a_file_beside_draws_the_same() -> None:
    first = weighted_order([100], [0.3], 1)
    assert (weighted_order([100, 50], [0.3, 2], 1)[:30] == first).all()
    assert (weighted_order([100], [0.3], 2) != first).any()
