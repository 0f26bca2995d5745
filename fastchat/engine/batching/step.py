"""One forward pass as arrays: all sequences' new tokens in one flat row, and where they belong.

Shapes: T tokens of the step, R sequences, Q rows whose logits are wanted, S states to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastchat.engine.batching.scheduler import Work

_NOTHING, _STORED = -1, -2


@dataclass(frozen=True, slots=True)
class Step:
    """What the network needs to know of one step.

    Attributes:
        token_ids: (T,) int64.
        positions: (T,) int32, each in its own sequence.
        previous: (T,) int32: the row of the token before each one; -1 where there is none,
            -2 - s where it is not in this step but its state is kept in place s.
        starts: (R + 1,) int32, first row of each sequence.
        contexts: (R,) int32, tokens of each sequence up to the end of this step.
        tables: (R, blocks) int32, each sequence's blocks of the cache.
        slots: (T,) int64, where each token's key and value go: block * block_size + offset.
        state_rows, state_places: (S,) int64, rows whose filter state is kept, and where.
        logit_rows: (Q,) int64.
        sizes: rows of each sequence.
        adapters: (T,) int64 number of each row's adapter, -1 for none; None if all have none.
    """

    token_ids: Tensor
    positions: Tensor
    previous: Tensor
    starts: Tensor
    contexts: Tensor
    tables: Tensor
    slots: Tensor
    state_rows: Tensor
    state_places: Tensor
    logit_rows: Tensor
    sizes: tuple[int, ...]
    adapters: Tensor | None = None

    def to(self, device: torch.device) -> Step:
        """The same step with its tensors on a device."""
        if device.type == "cpu":
            return self
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in values
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class Layout:
    """A step, and where in it each piece of work stands.

    Attributes:
        step: the arrays.
        logits: for each work the slice of its logits among those of the step.
        scratch: for each work the place where the state of its first uncertain row is kept.
    """

    step: Step
    logits: list[slice]
    scratch: list[int]


def lay_out(works: Sequence[Work], block_size: int, scratch: int) -> Layout:
    """Makes the arrays of a step.

    Args:
        works: what each sequence does.
        block_size: tokens a block.
        scratch: first place for states of rows that may not stand: of drafts, and of the
            token before them. States that stand are kept in the place of their block.
    """
    if all(map(_generates, works)):
        return _lay_out_single(works, block_size, scratch)
    first = np.array([work.sequence.computed for work in works])
    drafts = np.array([len(work.drafts) for work in works])
    sizes = np.array([work.count for work in works]) + drafts
    stops = first + sizes
    starts = np.zeros(len(works) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    tables = _tables(works, -(-stops // block_size))

    rows = np.arange(starts[-1])
    owner = np.repeat(np.arange(len(works)), sizes)
    positions = rows - starts[owner] + first[owner]
    blocks = tables[owner, positions // block_size].astype(np.int64)
    previous = rows - 1
    before = tables[np.arange(len(works)), np.maximum(first - 1, 0) // block_size]
    previous[starts[:-1]] = np.where(first > 0, _STORED - before, _NOTHING)

    kept = (positions + 1) % block_size == 0
    kept[starts[1:][drafts == 0] - 1] = True
    kept_rows = np.flatnonzero(kept)
    uncertain = np.where(drafts > 0, drafts + 1, 0)
    scratches = scratch + np.cumsum(uncertain) - uncertain
    uncertain_rows = np.flatnonzero(rows >= (starts[1:] - uncertain)[owner])

    asked = np.array([_logit_rows(work) for work in works])
    step = Step(
        token_ids=torch.from_numpy(_tokens(works, int(starts[-1]))),
        positions=torch.from_numpy(positions.astype(np.int32)),
        previous=torch.from_numpy(previous.astype(np.int32)),
        starts=torch.from_numpy(starts.astype(np.int32)),
        contexts=torch.from_numpy(stops.astype(np.int32)),
        tables=torch.from_numpy(tables),
        slots=torch.from_numpy(blocks * block_size + positions % block_size),
        state_rows=torch.from_numpy(np.concatenate([kept_rows, uncertain_rows])),
        state_places=torch.from_numpy(
            np.concatenate([blocks[kept_rows], scratch + np.arange(len(uncertain_rows))])
        ),
        logit_rows=torch.from_numpy(np.flatnonzero(rows >= (starts[1:] - asked)[owner])),
        sizes=tuple(sizes.tolist()),
        adapters=_adapters(works, owner),
    )
    edges = [0, *np.cumsum(asked).tolist()]
    return Layout(step, [slice(*pair) for pair in pairwise(edges)], scratches.tolist())


def _generates(work: Work) -> bool:
    """Whether a work is nothing but one token, whose logits are wanted."""
    return work.samples and work.count == 1 and not work.drafts


def _lay_out_single(works: Sequence[Work], block_size: int, scratch: int) -> Layout:
    """The same arrays where every sequence has one token: most steps, so with the least work."""
    count = len(works)
    places = np.array([work.sequence.computed for work in works], np.int32)
    number, offset = np.divmod(places, block_size)
    tables = _tables(works, number + 1)
    rows = np.arange(count)
    blocks = tables[rows, number].astype(np.int64)
    before = tables[rows, np.maximum(places - 1, 0) // block_size]
    all_rows = torch.from_numpy(rows)
    step = Step(
        token_ids=torch.from_numpy(_tokens(works, count)),
        positions=torch.from_numpy(places),
        previous=torch.from_numpy(np.where(places > 0, _STORED - before, np.int32(_NOTHING))),
        starts=torch.arange(count + 1, dtype=torch.int32),
        contexts=torch.from_numpy(places + np.int32(1)),
        tables=torch.from_numpy(tables),
        slots=torch.from_numpy(blocks * block_size + offset),
        state_rows=all_rows,
        state_places=torch.from_numpy(blocks),
        logit_rows=all_rows,
        sizes=(1,) * count,
        adapters=_adapters(works, rows),
    )
    return Layout(step, [slice(row, row + 1) for row in range(count)], [scratch] * count)


def _tables(works: Sequence[Work], blocks: NDArray[Any]) -> NDArray[np.int32]:
    tables = np.zeros((len(works), blocks.max()), np.int32)
    for table, work, count in zip(tables, works, blocks.tolist(), strict=True):
        table[:count] = work.sequence.table[:count]
    return tables


def _adapters(works: Sequence[Work], owner: NDArray[np.int64]) -> Tensor | None:
    numbers = [work.sequence.adapter for work in works]
    return None if max(numbers) < 0 else torch.from_numpy(np.array(numbers)[owner])


def _tokens(works: Sequence[Work], total: int) -> NDArray[np.int64]:
    tokens: list[int] = []
    for work in works:
        first = work.sequence.computed
        tokens += work.sequence.tokens[first : first + work.count]
        tokens += work.drafts
    assert len(tokens) == total
    return np.array(tokens, np.int64)


def _logit_rows(work: Work) -> int:
    """How many rows, from the last, need logits."""
    if work.all_logits:
        return work.count
    return 1 + len(work.drafts) if work.samples else 0
