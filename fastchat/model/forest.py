"""Many token sequences in one row: a forest, in which every token has a parent.

A token's parent is the token before it in its own sequence; a sequence's first token has
none. Sequences that begin alike share their beginning. Packed documents are the forest
whose trees are chains, so packing and shared beginnings are one thing: a token's position
is its depth, it attends to its ancestors and itself, Yuan2's filter reads its parent and
the parent's parent, and a token is predicted from its parent.

Nodes are in pre-order: behind each stand its descendants, before all others. Node j is
then an ancestor of node i, or i itself, exactly where j <= i < end[j], with end[j] the
place behind j's last descendant.

Shapes: S tokens of the row, N heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """Nodes start..stop, each the parent of the next.

    Attributes:
        start: first node.
        stop: behind the last node.
        ancestors: of the first node, ascending; empty where it has no parent.
    """

    start: int
    stop: int
    ancestors: Ints


@dataclass(frozen=True)
class Forest:
    """Which token is whose parent, in one row.

    Attributes:
        parents: (S,) index of each token's parent, -1 where it has none; in pre-order.

    Raises:
        ValueError: `parents` are not in pre-order.
    """

    parents: Tensor
    _masks: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, parents: Sequence[int] | Ints) -> Forest:
        """A forest on the CPU."""
        forest = cls(torch.as_tensor(np.asarray(parents, np.int64)))
        _ = forest.trees
        return forest

    def to(self, device: Any, **_: Any) -> Forest:
        """The same forest with its tensors on a device."""
        moved = Forest(self.parents.to(device))
        vars(moved).update(
            {
                name: vars(self)[name]
                for name in ("trees", "_layout", "_bounds")
                if name in vars(self)
            }
        )
        return moved

    @cached_property
    def _bounds(self) -> tuple[Ints, list[tuple[int, int]]]:
        """The parents, and (start, stop) of the runs of nodes that follow each other."""
        parents = self.parents.cpu().numpy()
        breaks = np.flatnonzero(parents != np.arange(len(parents)) - 1)
        edges = sorted({0, *breaks.tolist(), len(parents)})
        return parents, list(pairwise(edges))

    @cached_property
    def _layout(self) -> tuple[Ints, Ints]:
        """(depths, ends) of all nodes."""
        parents, bounds = self._bounds
        size = len(parents)
        if ((parents >= np.arange(size)) | (parents < -1)).any():
            raise ValueError("A parent has to stand before its child, or be -1.")
        depths, ends = np.empty(size, np.int64), np.full(size, size)
        open_ranges: list[tuple[int, int]] = []  # the path to the current node
        for start, stop in bounds:
            parent = int(parents[start])
            while open_ranges and open_ranges[-1][1] > parent + 1:
                first, last = open_ranges.pop()
                closed = max(first, parent + 1)
                ends[closed:last] = start
                if first <= parent:
                    open_ranges.append((first, parent + 1))
            if parent >= 0 and (not open_ranges or open_ranges[-1][1] != parent + 1):
                raise ValueError("The nodes are not in pre-order.")
            depth = depths[parent] + 1 if parent >= 0 else 0
            depths[start:stop] = np.arange(depth, depth + stop - start)
            open_ranges.append((start, stop))
        return depths, ends

    @cached_property
    def trees(self) -> list[list[Run]]:
        """The runs of each tree, in order."""
        parents, bounds = self._bounds
        _, ends = self._layout
        trees: list[list[Run]] = []
        for start, stop in bounds:
            if parents[start] < 0:
                trees.append([])
            root = trees[-1][0].start if trees[-1] else start
            before = np.arange(root, start)
            trees[-1].append(Run(start, stop, before[ends[root:start] > start]))
        return trees

    @property
    def chains(self) -> bool:
        """Whether no two sequences share a beginning."""
        return all(len(runs) == 1 for runs in self.trees)

    @property
    def position_ids(self) -> Tensor:
        """(1, S) depth of each token."""
        return torch.as_tensor(self._layout[0], device=self.parents.device)[None]

    @property
    def attention_pairs(self) -> int:
        """How many (token, token it attends to) there are."""
        return int((self._layout[0] + 1).sum())

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, dropout: float = 0.0
    ) -> Tensor:
        """Attention of every token to its ancestors and itself.

        On CUDA by a kernel for sequences of different lengths where there are no shared
        beginnings, else by flex attention. Elsewhere run by run, so that no product is
        computed that the mask would throw away.

        Args:
            query: (1, N, S, D).
            key: (1, N', S, D); N' divides N.
            value: (1, N', S, D).
            scale: multiplies the scores.
            dropout: of the attention weights.

        Returns:
            (1, N, S, D).
        """
        if query.is_cuda and not dropout:
            if self.chains and query.dtype in (torch.float16, torch.bfloat16):
                return self._attend_varlen(query, key, value, scale)
            return self._attend_flex(query, key, value, scale)
        return self._attend_by_runs(query, key, value, scale, dropout)

    def _attend_by_runs(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        # Splitting rather than slicing: its gradient is one concatenation.
        sizes = [runs[-1].stop - runs[0].start for runs in self.trees]
        pieces = zip(*(torch.split(x, sizes, dim=2) for x in (query, key, value)), strict=True)
        outputs = []
        for number, (runs, (q, k, v)) in enumerate(zip(self.trees, pieces, strict=True)):
            if len(runs) == 1:
                outputs.append(
                    scaled_dot_product_attention(
                        q, k, v, dropout_p=dropout, is_causal=True, scale=scale
                    )
                )
                continue
            sizes = [run.stop - run.start for run in runs]
            for part, own in enumerate(torch.split(q, sizes, dim=2)):
                seen, mask = self._seen(number, part, query)
                outputs.append(
                    scaled_dot_product_attention(
                        own,
                        k.index_select(2, seen),
                        v.index_select(2, seen),
                        attn_mask=mask,
                        dropout_p=dropout,
                        scale=scale,
                    )
                )
        return torch.cat(outputs, dim=2)

    def _seen(self, tree: int, part: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """What a run sees: indices into its tree (T,), and an additive mask (run, T).

        Made once a batch and kept for all layers.
        """
        key = (tree, part, like.dtype, like.device)
        if key not in self._masks:
            runs = self.trees[tree]
            run = runs[part]
            size, offset = run.stop - run.start, runs[0].start
            seen = np.concatenate([run.ancestors, np.arange(run.start, run.stop)]) - offset
            hidden = torch.ones(size, len(seen), dtype=torch.bool).triu(len(seen) - size + 1)
            mask = torch.zeros(size, len(seen), dtype=like.dtype).masked_fill(hidden, -torch.inf)
            self._masks[key] = torch.as_tensor(seen).to(like.device), mask.to(like.device)
        return self._masks[key]

    def _attend_varlen(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        if "bounds" not in self._masks:
            sizes = [runs[0].stop - runs[0].start for runs in self.trees]
            bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
            self._masks["bounds"] = torch.as_tensor(bounds).to(query.device), max(sizes)
        bounds, longest = self._masks["bounds"]
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))  # (S, N, D)
        output = varlen_attn(
            q,
            k,
            v,
            bounds,
            bounds,
            longest,
            longest,
            scale=scale,
            window_size=(-1, 0),
            enable_gqa=key.shape[1] != query.shape[1],
        )
        assert isinstance(output, Tensor)
        return output.transpose(0, 1)[None]

    def _attend_flex(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask
        from transformers.integrations.flex_attention import WrappedFlexAttention

        if "blocks" not in self._masks:
            ends = torch.as_tensor(self._layout[1], device=query.device)
            size = len(self._layout[1])

            def sees(_: Tensor, __: Tensor, i: Tensor, j: Tensor) -> Tensor:
                return (j <= i) & (i < ends[j])

            self._masks["blocks"] = create_block_mask(
                sees, None, None, size, size, device=str(query.device)
            )
        output: Tensor = WrappedFlexAttention(training=True)()(
            query,
            key,
            value,
            block_mask=self._masks["blocks"],
            scale=scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return output


def forest_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    forest: Forest | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' form, of rows that hold a forest; without one, as "sdpa".

    Raises:
        ValueError: a model that asks for more than plain attention.
    """
    if forest is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output, None
    unknown = [name for name in ("sliding_window", "softcap", "s_aux") if options.get(name)]
    if unknown:
        raise ValueError(f"Attention over a forest has no {' and no '.join(unknown)}.")
    attended = forest.attend(query, key, value, scale=scaling, dropout=dropout)
    return attended.transpose(1, 2).contiguous(), None


def mask_for_forest(input_ids: Tensor) -> Tensor:
    """What a model other than Yuan2 is given as its attention mask where a forest is the mask.

    Four dimensions say to transformers that there is nothing to be made of it.
    """
    return input_ids.new_ones(1, 1, 1, 1)


def register_forest_attention() -> None:
    """Makes "forest" an attention implementation that any transformers model can be set to."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("forest", forest_attention)
    AttentionMaskInterface.register("forest", sdpa_mask)
