"""Puts rows together into batches. Knows nothing of conversations or of loops.

Shapes: B rows, S tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastchat.data.rows import IGNORED


@dataclass(frozen=True, slots=True)
class RowCollator:
    """Pads rows to the longest of their batch.

    Attributes:
        pad_id: fills `input_ids`; any id will do, as the mask leaves it out.
        padding_side: "right" or "left".
    """

    pad_id: int
    padding_side: str = "right"

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """`input_ids`, `labels` (-100 at padding) and `attention_mask`, each (B, S) int64."""
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {
            "input_ids": self._pad(ids, self.pad_id),
            "labels": self._pad(labels, IGNORED),
            "attention_mask": self._pad([torch.ones_like(row) for row in ids], 0),
        }

    def _pad(self, rows: list[Tensor], value: int) -> Tensor:
        return pad_sequence(
            rows, batch_first=True, padding_value=value, padding_side=self.padding_side
        )
