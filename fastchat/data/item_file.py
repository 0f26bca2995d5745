"""Trees on disk: an Arrow file that is memory-mapped, so its size costs no memory.

Four columns: an item's id, its token ids, its branches and its learned ranges, the last
two as flat lists of pairs. What became of the samples is noted with each block of items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastchat.data.rows import RowStats
from fastchat.data.tree import Tree
from fastchat.errors import SettingsError

_COLUMNS = ("input_ids", "branches", "learned")
_STATS = "stats"

Ints = NDArray[np.int32]
Lists = tuple[Ints, Ints]
"""Lists of numbers in one piece: list i is values[offsets[i]:offsets[i + 1]]."""


@dataclass(frozen=True, slots=True)
class ItemBlock:
    """Some items, column by column, and what became of the samples they were made of."""

    ids: list[str]
    columns: dict[str, Lists]
    stats: RowStats

    @classmethod
    def of(cls, trees: list[Tree], stats: RowStats) -> Self:
        """Puts trees into columns."""
        arrays = [tree.input_ids for tree in trees]
        columns = {
            "input_ids": (
                _offsets([len(array) for array in arrays]),
                np.concatenate(arrays) if arrays else np.empty(0, np.int32),
            ),
            "branches": _flatten([tree.branches for tree in trees]),
            "learned": _flatten([tree.learned for tree in trees]),
        }
        return cls([tree.item_id for tree in trees], columns, stats)


def _flatten(lists: list[Any]) -> Lists:
    flat = [number for pairs in lists for pair in pairs for number in pair]
    return _offsets([2 * len(pairs) for pairs in lists]), np.array(flat, np.int32)


def _offsets(sizes: list[int]) -> Ints:
    return np.cumsum([0, *sizes], dtype=np.int32)


def write_items(path: Path, blocks: Iterable[ItemBlock]) -> None:
    """Writes blocks as they come. The file appears under its name only when it is whole."""
    pa = _pyarrow()
    numbers = pa.list_(pa.int32())
    schema = pa.schema([("id", pa.string()), *((name, numbers) for name in _COLUMNS)])
    partial = path.with_name(f"{path.name}.partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for block in blocks:
            arrays = [pa.array(block.ids, pa.string())]
            arrays += [
                pa.ListArray.from_arrays(*map(pa.array, block.columns[name])) for name in _COLUMNS
            ]
            writer.write_batch(
                pa.record_batch(arrays, schema=schema),
                custom_metadata={_STATS: json.dumps(block.stats.as_dict())},
            )
    partial.replace(path)


class ItemFile:
    """The items of a file, in order; none of them is held in memory.

    Args:
        path: written by `write_items`.

    Attributes:
        stats: what became of the samples.
        lengths: (N,) tokens of each item.
    """

    def __init__(self, path: Path) -> None:
        pa = _pyarrow()
        self.stats = RowStats()
        self._path = path
        self._blocks: list[Any] = []
        lengths = [np.empty(0, np.int32)]
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        for number in range(reader.num_record_batches):
            block, metadata = reader.get_batch_with_custom_metadata(number)
            self.stats.add(RowStats(**json.loads(metadata[_STATS.encode()])))
            self._blocks.append(block)
            lengths.append(np.diff(block.column("input_ids").offsets.to_numpy()))
        self.lengths: Ints = np.concatenate(lengths)
        self._starts = np.cumsum([0, *(len(block) for block in self._blocks)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tree:
        """Item number `index`."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        block, place = self._blocks[number], index - int(self._starts[number])
        ids, branches, learned = (_list(block.column(name), place) for name in _COLUMNS)
        return Tree(block.column("id")[place].as_py(), ids, _pairs(branches), _pairs(learned))

    def __reduce__(self) -> tuple[type[ItemFile], tuple[Path]]:
        return ItemFile, (self._path,)  # a loader's process maps the file itself


def _list(column: Any, index: int) -> Ints:
    offsets = column.offsets
    start, stop = offsets[index].as_py(), offsets[index + 1].as_py()
    values: Ints = column.values[start:stop].to_numpy()
    return values


def _pairs(flat: Ints) -> list[tuple[int, int]]:
    numbers = flat.tolist()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise SettingsError(
            "pyarrow is not installed, and tokenised rows are kept in Arrow files.",
            hint="Install this project with its 'train' extra, or give --lazy_preprocess True.",
        ) from None
    return pa
