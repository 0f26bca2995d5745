"""Data files become the same items whichever way they are read, and no item is lost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.chat import JinjaChatRenderer, YuanChatRenderer
from fastchat.data.building import BLOCK, build_blocks
from fastchat.data.dataset import HeldItems, ItemDataset, ItemReader, row_builder
from fastchat.data.rows import LossMode, RowStats
from fastchat.data.sample import Sample
from fastchat.data.sources import Source
from fastchat.data.tree import Tree
from fastchat.errors import DataError
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.talks import same_tree, talk, write_samples

MANY = [
    talk(*(["Who are you?", f"Number {n}."] * (1 + n % 3)), name=f"s{n}") for n in range(BLOCK + 5)
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTCHAT_CACHE", str(folder))
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "many.jsonl", MANY)


@pytest.fixture
def reader(tokenizer: YuanTokenizer, renderer: YuanChatRenderer) -> ItemReader:
    return ItemReader(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 40)


def test_cached_items_equal_those_in_memory(reader: ItemReader, many: Path, cache: Path) -> None:
    held = HeldItems(MANY, reader.builder, lazy=False)
    cached = reader.read([Source(str(many))])
    lazy = reader.read([Source(str(many))], lazy=True)
    assert [file.suffix for file in sorted(cache.iterdir())] == [".arrow", ".lock"]
    assert len(held) == len(cached) == len(lazy)
    assert held.stats == cached.stats == lazy.stats
    assert held.lengths.tolist() == cached.lengths.tolist() == lazy.lengths.tolist()
    assert all(same_tree(held[i], cached[i]) for i in range(len(held)))
    assert all(same_tree(held[i], lazy[i]) for i in range(len(held)))


def test_the_second_time_nothing_is_tokenised(
    reader: ItemReader, many: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = reader.read([Source(str(many))])
    assert caplog.text.count("tokenising") == 1
    (file,) = cache.glob("*.arrow")
    made = file.stat()
    second = reader.read([Source(str(many))])
    assert caplog.text.count("tokenising") == 1
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (made.st_mtime_ns, made.st_ino)
    assert second.stats == first.stats
    with many.open("a") as data:
        data.write("\n")
    reader.read([Source(str(many))])
    assert caplog.text.count("tokenising") == 2
    assert len(list(cache.glob("*.arrow"))) == 2


def test_any_number_of_processes_builds_the_same_blocks_in_order(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer
) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.LAST_RESPONSE, 40)
    one, two = (list(build_blocks(builder, iter(MANY), processes)) for processes in (1, 2))
    assert [block.ids for block in one] == [block.ids for block in two]
    assert [block.stats for block in one] == [block.stats for block in two]
    for mine, other in zip(one, two, strict=True):
        assert mine.columns.keys() == other.columns.keys()
        for name, lists in mine.columns.items():
            for left, right in zip(lists, other.columns[name], strict=True):
                np.testing.assert_array_equal(left, right)


def test_an_error_of_a_building_process_is_told_as_it_is(tokenizer: YuanTokenizer) -> None:
    builder = row_builder(tokenizer, JinjaChatRenderer(tokenizer), LossMode.EFFICIENT, 40)
    with pytest.raises(DataError, match=r"Sample 's1' has several answers.* Choose split_example"):
        list(build_blocks(builder, iter(MANY), 2))


def test_no_file_is_read_further_than_the_work_needs(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer
) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.LAST_RESPONSE, 40)
    taken: list[Sample] = []

    def samples() -> Iterator[Sample]:
        for _ in range(50 * BLOCK):
            taken.append(MANY[0])
            yield MANY[0]

    assert len(next(build_blocks(builder, samples(), 1)).ids) == BLOCK
    assert len(taken) <= 2 * BLOCK


def test_nothing_to_learn_at_all_is_an_error(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer, tmp_path: Path
) -> None:
    path = write_samples(tmp_path / "chat.json", [talk("a" * 50, "b" * 50)])
    reader = ItemReader(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 5)
    for lazy in (False, True):
        with pytest.raises(DataError, match=r"chat\.json holds nothing to learn.*too long"):
            reader.read([Source(str(path))], lazy=lazy)


@pytest.fixture
def two_files(tmp_path: Path) -> list[str]:
    groups = {"a": MANY[:4], "b": MANY[10:20]}
    return [str(write_samples(tmp_path / f"{name}.jsonl", own)) for name, own in groups.items()]


def names(items: ItemDataset) -> list[str]:
    return [items[index].item_id for index in range(len(items))]


def test_several_files_follow_each_other(reader: ItemReader, two_files: list[str]) -> None:
    items = reader.read([Source(path) for path in two_files])
    assert names(items) == [f"s{n}" for n in [*range(4), *range(10, 20)]]
    assert items.stats.samples == 14
    assert items.lengths.tolist() == [len(items[n]) for n in range(14)]


def test_a_weight_says_how_often_items_are_read(reader: ItemReader, two_files: list[str]) -> None:
    sources = [Source(two_files[0], 2.5), Source(two_files[1], 0.3)]
    items = reader.read(sources, seed=1)
    counts = Counter(names(items))
    assert sorted(counts[f"s{n}"] for n in range(4)) == [2, 2, 3, 3]
    assert sum(counts[f"s{n}"] for n in range(10, 20)) == 3
    assert names(reader.read(sources, seed=1)) == names(items)
    assert names(reader.read(sources, seed=2)) != names(items)
    assert items.lengths.tolist() == [len(items[n]) for n in range(len(items))]
    with pytest.raises(DataError, match=r"Weights of 0\.1 take none of 4 conversations"):
        reader.read([Source(two_files[0], 0.1)])


class Numbers:
    """Items of one token, each named by its place."""

    def __init__(self, count: int) -> None:
        self.stats = RowStats(samples=count)
        self.lengths = np.ones(count, np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tree:
        return Tree(str(index), np.array([index], np.int32))


@settings(deadline=None)
@given(
    copies=st.lists(st.integers(0, 3), min_size=2, max_size=20).filter(
        lambda copies: sum(map(bool, copies)) > 1
    ),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_what_is_held_out_is_never_learned(copies: list[int], share: float, seed: int) -> None:
    order = np.repeat(np.arange(len(copies)), copies)
    parts = [Numbers(len(copies))]
    left, out = ItemDataset(parts, order).hold_out(share, seed)
    assert set(names(left)).isdisjoint(names(out))
    assert Counter(names(left)) + Counter(
        {name: copies[int(name)] for name in names(out)}
    ) == Counter(map(str, order.tolist()))
    items = sum(map(bool, copies))
    assert len(out) == len(set(names(out))) == min(items - 1, max(1, round(share * items)))
    again = ItemDataset(parts, order).hold_out(share, seed)
    assert [names(part) for part in again] == [names(left), names(out)]


def test_one_conversation_is_too_little_to_hold_out(reader: ItemReader, tmp_path: Path) -> None:
    path = write_samples(tmp_path / "one.jsonl", MANY[:1])
    items = reader.read([Source(str(path), 3)])
    with pytest.raises(DataError, match="--eval_ratio 0"):
        items.hold_out(0.5, 0)
