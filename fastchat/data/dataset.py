"""The rows of a data file as a sequence, built at once or when asked for.

Torch's loaders take it as it is, though it imports no torch. Knows nothing of batches.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastchat.chat import ChatRenderer
from fastchat.data.reader import read_samples
from fastchat.data.rows import LossMode, Row, RowBuilder, RowStats
from fastchat.data.sample import Sample
from fastchat.errors import DataError

logger = logging.getLogger(__name__)


class RowDataset:
    """The rows of conversations, in order; the k rows of a split conversation together.

    Every row is built once at the start, which finds all errors and gives the counts; a
    lazy data set then keeps only the rows' places and lengths and builds each row again
    when it is asked for. Both give the same rows.

    Args:
        samples: the conversations.
        builder: builds their rows.
        lazy: spend time instead of memory.
        name: names the data in errors, its file for instance.

    Attributes:
        stats: what became of the samples.
        lengths: number of tokens of each row.

    Raises:
        DataError: there is nothing to learn in any sample.
    """

    def __init__(
        self, samples: Sequence[Sample], builder: RowBuilder, *, lazy: bool = False, name: str
    ) -> None:
        self.stats = RowStats()
        self.lengths: list[int] = []
        self._samples = samples
        self._builder = builder
        self._places: list[tuple[int, int]] = []
        self._rows: list[Row] | None = None if lazy else []
        for index, sample in enumerate(samples):
            self.stats.add_sample(sample)
            for target in builder.targets(sample):
                row = builder.row(sample, target)
                self.stats.add_row(row)
                if row is not None:
                    self._add(index, target, row)
        if not self.lengths:
            raise DataError(
                f"{name} holds nothing to learn: {self.stats}.",
                hint="Raise --model_max_length, or check that 'gpt' turns answer 'human' ones.",
            )

    def _add(self, index: int, target: int, row: Row) -> None:
        self.lengths.append(len(row.input_ids))
        self._places.append((index, target))
        if self._rows is not None:
            self._rows.append(row)

    def row(self, index: int) -> Row:
        """Row number `index`."""
        if self._rows is not None:
            return self._rows[index]
        sample, target = self._places[index]
        row = self._builder.row(self._samples[sample], target)
        assert row is not None, "a row that fitted once fits again"
        return row

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        """`{"input_ids": S ids, "labels": S labels}`, the form that collators take."""
        row = self.row(index)
        return {"input_ids": row.input_ids, "labels": row.labels}


def row_builder(
    tokenizer: Any, renderer: ChatRenderer, mode: LossMode, max_length: int
) -> RowBuilder:
    """A builder for a model's tokenizer and chat renderer."""
    from fastchat.model.tokenization_yuan import YuanTokenizer

    encode_offsets = tokenizer.encode_offsets if isinstance(tokenizer, YuanTokenizer) else None
    return RowBuilder(renderer, mode, max_length, encode_offsets)


def read_rows(path: str | Path, builder: RowBuilder, *, lazy: bool = False) -> RowDataset:
    """Reads a data file and builds its rows; logs the counts.

    Raises:
        DataError: see `read_samples` and `RowDataset`.
    """
    rows = RowDataset(read_samples(path), builder, lazy=lazy, name=str(path))
    logger.info("%s: %s", path, rows.stats)
    return rows
