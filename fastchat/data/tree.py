"""One data item as a prefix tree of tokens: every token has a parent.

A conversation in split mode is k rows that share most of their history. Merged at their
common beginnings they are one tree, in which each shared token stands once:

    q1 ─┬─ <sep> a1 <eod>
        └─ <n> a1 <n> q2 ─┬─ <sep> a2 <eod>
                          └─ ...

A token's parent is the token before it in its own row; a row's first token has none. All
else follows from that: a token's position is its depth, it attends to its ancestors, and a
learned token is predicted from its parent. Tokens are merged by id, so one that straddles
a turn's end needs no special care. Knows nothing of text or torch.

Nodes are in pre-order: behind each stand its descendants, before all others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastchat.data.rows import IGNORED, Row

Ints = NDArray[np.int32]
Branch = tuple[int, int]
"""(first node of a run of nodes that follow each other, parent of that node)."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The token sequences of one data item, merged.

    Attributes:
        item_id: of the conversation.
        input_ids: (S,) token ids of the nodes.
        branches: where a node's parent is not the node before it; ascending. The first
            node, whose parent is -1, is not among them.
        learned: nodes that are learned, as ranges (start, stop), ascending.
    """

    item_id: str
    input_ids: Ints
    branches: Sequence[Branch] = ()
    learned: Sequence[tuple[int, int]] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def learned_tokens(self) -> int:
        """How many nodes are learned."""
        return sum(stop - start for start, stop in self.learned)

    def parents(self) -> Ints:
        """(S,) index of each node's parent, -1 for the first."""
        parents = np.arange(-1, len(self) - 1, dtype=np.int32)
        for start, parent in self.branches:
            parents[start] = parent
        return parents

    def learned_nodes(self) -> Ints:
        """(K,) indices of the learned nodes."""
        if not self.learned:
            return np.empty(0, np.int32)
        return np.concatenate([np.arange(*bounds, dtype=np.int32) for bounds in self.learned])

    def rows(self) -> list[tuple[Ints, NDArray[np.bool_]]]:
        """The tree as rows again: (ids, learned), from the root to each end.

        Every learned token is learned in one of the rows. What an end alone adds need not
        be learned; ends without any learned token are left out.
        """
        parents = self.parents()
        due = np.zeros(len(self), np.bool_)
        due[self.learned_nodes()] = True
        is_end = np.ones(len(self), np.bool_)
        is_end[parents[parents >= 0]] = False
        rows = []
        for end in np.flatnonzero(is_end).tolist():
            path = self._path(end, parents)
            learned = due[path]
            due[path] = False
            if learned.any():
                rows.append((self.input_ids[path], learned))
        return rows

    def _path(self, end: int, parents: Ints) -> Ints:
        starts = [start for start, _ in self.branches]
        pieces = []
        while end >= 0:
            start = starts[place - 1] if (place := bisect_right(starts, end)) else 0
            pieces.append(np.arange(start, end + 1, dtype=np.int32))
            end = int(parents[start])
        return np.concatenate(pieces[::-1])


def ranges(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The stretches of true values, as (start, stop)."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _learned_ranges(row: Row) -> list[tuple[int, int]]:
    start, size = row.labels.count(IGNORED), len(row.labels)
    if start == size or IGNORED not in row.labels[start:]:  # all that is learned is at the end
        return [(start, size)] if start < size else []
    return ranges(np.asarray(row.labels) != IGNORED)


def merge(rows: Sequence[Row]) -> Tree:
    """The tree of an item's rows.

    Training on it is training on the rows: no node is learned for two of them. Where two
    rows would learn the same token in the same place, they part before it.

    Args:
        rows: at least one.
    """
    if len(rows) == 1:
        row = rows[0]
        ids = np.fromiter(row.input_ids, np.int32, len(row.input_ids))
        return Tree(row.sample_id, ids, (), _learned_ranges(row))
    return _Merging(rows).tree()


@dataclass(slots=True)
class _Run:
    """What one row adds to the tree: nodes start..stop in order of creation, below a parent."""

    start: int
    stop: int
    parent: int
    below: list[_Run] = field(default_factory=list)


class _Merging:
    def __init__(self, rows: Sequence[Row]) -> None:
        most = sum(len(row.input_ids) for row in rows)
        self._item_id = rows[0].sample_id
        self._ids = np.empty(most, np.int32)
        self._learned = np.zeros(most, np.bool_)
        self._size = 0
        self._paths: list[Ints] = []
        self._roots: list[_Run] = []
        self._runs: list[_Run] = []
        for row in rows:
            self._add(np.asarray(row.input_ids, np.int32), np.asarray(row.labels) != IGNORED)

    def _add(self, ids: Ints, learned: NDArray[np.bool_]) -> None:
        shared = np.empty(0, np.int32)
        for path in reversed(self._paths):  # the latest is the likeliest to share most
            known = len(shared)
            if known < min(len(path), len(ids)) and self._ids[path[known]] == ids[known]:
                length = self._shared_length(path, ids, learned)
                if length > known:
                    shared = path[:length]
        start, stop = self._size, self._size + len(ids) - len(shared)
        self._ids[start:stop] = ids[len(shared) :]
        path = np.concatenate([shared, np.arange(start, stop, dtype=np.int32)])
        self._learned[path] |= learned
        self._size = stop
        self._paths.append(path)
        if start < stop:
            self._attach(_Run(start, stop, int(shared[-1]) if len(shared) else -1))

    def _shared_length(self, path: Ints, ids: Ints, learned: NDArray[np.bool_]) -> int:
        length = min(len(path), len(ids))
        path = path[:length]
        differ = self._ids[path] != ids[:length]
        differ |= self._learned[path] & learned[:length]
        first = int(differ.argmax())
        return first if differ[first] else length

    def _attach(self, run: _Run) -> None:
        siblings = self._roots
        if run.parent >= 0:
            siblings = next(r for r in self._runs if r.start <= run.parent < r.stop).below
        siblings.append(run)
        self._runs.append(run)

    def tree(self) -> Tree:
        order = list(self._in_order())
        old = np.concatenate([np.arange(run.start, run.stop, dtype=np.int32) for run in order])
        place = np.empty(len(old), np.int32)
        place[old] = np.arange(len(old), dtype=np.int32)
        branches = [
            (int(place[run.start]), int(place[run.parent]) if run.parent >= 0 else -1)
            for run in order[1:]
        ]
        kept = [(start, parent) for start, parent in branches if parent != start - 1]
        return Tree(self._item_id, self._ids[old], kept, ranges(self._learned[old]))

    def _in_order(self) -> Iterator[_Run]:
        # What branches off deeper down comes first: it is part of the subtrees further up.
        # On a stack of its own, as runs stand as deep in each other as there are answers.
        stack = self._roots[::-1]
        while stack:
            run = stack.pop()
            yield run
            stack += sorted(run.below, key=lambda below: (below.parent, -below.start))
