"""Samples become trees, on as many processes as there are cores.

Knows nothing of files. Tokenising is nearly all of the work and needs the interpreter's
lock, so processes share it, not threads.
"""

from __future__ import annotations

import gc
import marshal
import multiprocessing
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from fastchat.data.item_file import ItemBlock
from fastchat.data.rows import Row, RowBuilder, RowStats
from fastchat.data.sample import Sample
from fastchat.data.tree import Tree, merge
from fastchat.utils import available_cores

BLOCK = 1000
"""Samples that are worked on, and kept, together."""

_GROUP = 64
"""Samples that are tokenised together: several times cheaper than one by one, and few enough
that their rows, which repeat a long conversation's turns, take no memory to speak of."""


def build_trees(
    builder: RowBuilder, samples: Iterable[Sample], stats: RowStats
) -> Iterator[tuple[Sample, list[Row], Tree]]:
    """The rows of each sample and their tree; samples of which nothing is learned are left out.

    Args:
        builder: builds the rows.
        samples: the conversations.
        stats: where all of them are counted.
    """
    for group in _chunks(samples, _GROUP):
        for sample, found in zip(group, builder.rows(group), strict=True):
            stats.add_sample(sample)
            for row in found:
                stats.add_row(row)
            rows = [row for row in found if row is not None]
            if rows:
                tree = merge(rows)
                stats.laid_out_tokens += len(tree)
                yield sample, rows, tree


def build_block(builder: RowBuilder, samples: list[Sample]) -> ItemBlock:
    """The trees of some samples, and what became of these."""
    stats = RowStats()
    trees = [tree for _, _, tree in build_trees(builder, samples, stats)]
    return ItemBlock.of(trees, stats)


def build_blocks(
    builder: RowBuilder, samples: Iterable[Sample], processes: int | None = None
) -> Iterator[ItemBlock]:
    """The blocks of all samples, in order; reads no further ahead than the work needs.

    Args:
        builder: builds a sample's rows.
        samples: read as they are needed.
        processes: how many build; all cores if None. What fits one block is built here.
    """
    chunks = _chunks(samples, BLOCK)
    first = list(islice(chunks, 2))
    workers = available_cores() if processes is None else processes
    # Forked, a process has the tokenizer at once; elsewhere it would have to load it anew.
    if len(first) < 2 or workers < 2 or sys.platform != "linux":
        for chunk in _after(first, chunks):
            yield build_block(builder, chunk)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _receive, (builder,)) as pool:
        waiting: deque[Future[ItemBlock]] = deque()
        for chunk in _after(first, chunks):
            waiting.append(pool.submit(_build_here, pack(chunk)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def pack(samples: list[Sample]) -> bytes:
    """Samples as bytes, several times faster than pickled."""
    return marshal.dumps(
        [
            (sample.id, sample.messages, sample.leading_dropped, sample.trailing_dropped)
            for sample in samples
        ]
    )


def unpack(packed: bytes) -> list[Sample]:
    """What `pack` was given."""
    parts = marshal.loads(packed)  # noqa: S302 (this process's own)
    return [Sample(*fields) for fields in parts]


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _after(first: list[list[Sample]], rest: Iterator[list[Sample]]) -> Iterator[list[Sample]]:
    yield from first
    yield from rest


class _Process:
    """What a building process holds between calls."""

    builder: RowBuilder


def _receive(builder: RowBuilder) -> None:
    gc.disable()  # nothing that is built refers to itself
    _Process.builder = builder


def _build_here(packed: bytes) -> ItemBlock:
    return build_block(_Process.builder, unpack(packed))
