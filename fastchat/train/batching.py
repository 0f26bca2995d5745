"""Puts items together into batches. Knows nothing of conversations or of loops.

Shapes: S tokens of a row, K learned tokens, B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastchat.data.rows import IGNORED
from fastchat.data.tree import Tree
from fastchat.model.forest import Forest

Items = Sequence[Tree | Sequence[Tree]]


def flatten(items: Items) -> Iterator[Tree]:
    """The trees of items and of bins of items."""
    for item in items:
        if isinstance(item, Tree):
            yield item
        else:
            yield from item


@dataclass(frozen=True, slots=True)
class ForestCollator:
    """Lays items out one behind the other in a single row, without any padding."""

    def __call__(self, items: Items) -> dict[str, Any]:
        """A batch of one row.

        Returns:
            `input_ids` and `position_ids` (1, S), `forest`, `logits_to_keep` (K,): the places that
            learned tokens are predicted from, `shift_labels` and `labels` (K,): those
            tokens. `item_ids` names the items.
        """
        trees = list(flatten(items))
        ids, parents, learned = [], [], []
        start = 0
        for tree in trees:
            above = tree.parents().astype(np.int64)
            own = tree.learned_nodes()
            parents.append(np.where(above < 0, -1, above + start))
            learned.append(own[above[own] >= 0] + start)
            ids.append(tree.input_ids)
            start += len(tree)
        row = torch.as_tensor(np.concatenate(ids).astype(np.int64))
        forest = Forest.of(np.concatenate(parents))
        nodes = torch.as_tensor(np.concatenate(learned).astype(np.int64))
        targets = row[nodes]
        return {
            "input_ids": row[None],
            "position_ids": forest.position_ids,
            "forest": forest,
            "logits_to_keep": forest.parents[nodes],
            "shift_labels": targets,
            "labels": targets,
            "item_ids": [tree.item_id for tree in trees],
        }


@dataclass(frozen=True, slots=True)
class RowCollator:
    """Pads the rows of items to the longest of their batch: the plain alternative.

    An item with several rows gives several.

    Attributes:
        pad_id: fills `input_ids`; any id will do, as the mask leaves it out.
        padding_side: "right" or "left".
    """

    pad_id: int
    padding_side: str = "right"

    def __call__(self, items: Items) -> dict[str, Any]:
        """`input_ids`, `labels` (-100 at padding) and `attention_mask`, each (B, S) int64.

        `item_ids` names the items.
        """
        trees = list(flatten(items))
        rows = [row for tree in trees for row in tree.rows()]
        ids = [torch.as_tensor(tokens.astype(np.int64)) for tokens, _ in rows]
        labels = [
            torch.as_tensor(np.where(learned, tokens, IGNORED).astype(np.int64))
            for tokens, learned in rows
        ]
        for row in labels:
            row[0] = IGNORED  # nothing stands before it, but padding may
        return {
            "input_ids": self._pad(ids, self.pad_id),
            "labels": self._pad(labels, IGNORED),
            "attention_mask": self._pad([torch.ones_like(row) for row in ids], 0),
            "item_ids": [tree.item_id for tree in trees],
        }

    def _pad(self, rows: list[Tensor], value: int) -> Tensor:
        return pad_sequence(
            rows, batch_first=True, padding_value=value, padding_side=self.padding_side
        )
