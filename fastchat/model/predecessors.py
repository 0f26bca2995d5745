"""Which token comes before each token: the one idea behind padding, packing and caching.

Yuan2's filter reads, for each token, the token before it. In a row of a batch that is the
real token before it: padding is skipped, the first token of a packed document has none,
and the first token of a continued sequence follows the cached state. Said once per
forward pass as an index, it serves both stages of the filter in every layer.

Shapes: B batch, S tokens, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastchat.model.forest import Forest


@dataclass(frozen=True, slots=True)
class Predecessors:
    """Flat indices into a row's states `[before, x_0, ..., x_{S-1}]`, (B, S + 1, C) flattened.

    `before` is the cached state, or zeros where there is none.

    Attributes:
        previous: of the token before each token, (B * S,).
        latest: of the last real token up to each token, (B * S,); None where every token
            is real.
    """

    previous: Tensor
    latest: Tensor | None = None

    def to(self, device: torch.device | str | int, **options: Any) -> Predecessors:
        """The same on another device; what spreads layers over GPUs asks for it."""
        latest = None if self.latest is None else self.latest.to(device, **options)
        return Predecessors(self.previous.to(device, **options), latest)


def skip_padding(real: Tensor) -> Predecessors:
    """Predecessors in rows with padding.

    Args:
        real: (B, S), nonzero where a token is real.
    """
    size = real.shape[1]
    places = torch.arange(1, size + 1, device=real.device)
    latest = torch.where(real.bool(), places, 0).cummax(dim=1).values  # (B, S)
    previous = torch.nn.functional.pad(latest[:, :-1], (1, 0))
    return Predecessors(_flat(previous), _flat(latest))


def split_documents(position_ids: Tensor) -> Predecessors:
    """Predecessors in rows of packed documents, whose positions restart at 0.

    Args:
        position_ids: (B, S).
    """
    places = torch.arange(position_ids.shape[1], device=position_ids.device)
    return Predecessors(_flat(torch.where(position_ids == 0, 0, places)))


def parents_of(forest: Forest) -> Predecessors:
    """Predecessors in a row that holds a forest: the parents."""
    return Predecessors(forest.parents + 1)


def _flat(index: Tensor) -> Tensor:
    """(B, S) indices into each row's S + 1 states -> (B * S,) indices into all of them."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None]
    return (rows * (index.shape[1] + 1) + index).flatten()


def is_packed(position_ids: Tensor | None) -> bool:
    """Whether positions restart inside a row."""
    return position_ids is not None and bool((position_ids[:, 1:] == 0).any())


def take(states: Tensor, index: Tensor) -> Tensor:
    """Picks (B, S, C) out of states (B, S + 1, C) by flat indices (B * S,)."""
    batch, size, channels = states.shape
    return states.flatten(0, 1).index_select(0, index).view(batch, size - 1, channels)
