"""What a batch holds, whichever way it is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastchat.data.rows import IGNORED


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Counts of one micro-batch.

    Attributes:
        tokens: without padding.
        padding: places that hold none.
        learned: tokens with a label.
        items: conversations.
        attention_pairs: (token, token it attends to), itself included.
    """

    tokens: int
    padding: int
    learned: int
    items: int
    attention_pairs: int


def count(batch: Mapping[str, Any]) -> BatchCounts:
    """Counts a collator's batch."""
    places, items = batch["input_ids"].numel(), len(batch["item_ids"])
    if "forest" in batch:
        forest = batch["forest"]
        learned = batch["shift_labels"].numel()
        return BatchCounts(places, 0, learned, items, forest.attention_pairs)
    lengths = batch["attention_mask"].sum(dim=1)
    tokens = int(lengths.sum())
    learned = int((batch["labels"][:, 1:] != IGNORED).sum())
    pairs = int((lengths * (lengths + 1) // 2).sum())
    return BatchCounts(tokens, places - tokens, learned, items, pairs)
