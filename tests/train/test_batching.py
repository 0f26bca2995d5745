"""Items become one row without padding, or rows as long as the longest of their batch."""

from __future__ import annotations

import numpy as np
import torch

from fastchat.data.rows import Row
from fastchat.data.tree import Tree, merge
from fastchat.train.batch_counts import count
from fastchat.train.batching import ForestCollator, RowCollator

CHAIN = merge([Row("chain", [5, 6, 7], [-100, 6, 7])])
FORK = merge([Row("fork", [1, 2, 3], [-100, -100, 3]), Row("fork", [1, 4, 5], [-100, -100, 5])])
UNLEARNABLE = Tree("one", np.array([8], np.int32), (), [(0, 1)])


def test_items_lie_one_behind_the_other_each_token_with_its_parent() -> None:
    batch = ForestCollator()([CHAIN, FORK])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1, 2, 3, 4, 5]]
    assert batch["forest"].parents.tolist() == [-1, 0, 1, -1, 3, 4, 3, 6]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 1, 2]]
    assert batch["logits_to_keep"].tolist() == [0, 1, 4, 6]
    assert batch["shift_labels"].tolist() == [6, 7, 3, 5]
    assert batch["item_ids"] == ["chain", "fork"]
    counted = count(batch)
    assert (counted.tokens, counted.padding, counted.learned, counted.items) == (8, 0, 4, 2)
    assert counted.attention_pairs == 6 + 6 + 5


def test_a_bin_of_items_is_laid_out_as_its_items() -> None:
    flat, nested = ForestCollator()([CHAIN, FORK]), ForestCollator()([[CHAIN, FORK]])
    assert torch.equal(flat["input_ids"], nested["input_ids"])
    assert torch.equal(flat["forest"].parents, nested["forest"].parents)


def test_a_first_token_is_not_learned_as_nothing_predicts_it() -> None:
    assert ForestCollator()([UNLEARNABLE])["shift_labels"].tolist() == []


def test_short_rows_are_padded_on_the_right() -> None:
    batch = RowCollator(pad_id=9)([CHAIN, UNLEARNABLE])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    counted = count(batch)
    assert (counted.tokens, counted.padding, counted.learned) == (4, 2, 2)
    assert counted.attention_pairs == 6 + 1


def test_or_on_the_left() -> None:
    batch = RowCollator(pad_id=9, padding_side="left")([CHAIN, UNLEARNABLE])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_an_items_rows_come_apart_again() -> None:
    batch = RowCollator(pad_id=0)([FORK])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 4, 5]]
    assert batch["labels"].tolist() == [[-100, -100, 3], [-100, -100, 5]]
