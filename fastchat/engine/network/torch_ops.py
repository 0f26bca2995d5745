"""The network's operations in plain torch: any device, any floating type.

Shapes: T tokens of the step, R sequences, N heads, D size of a head, C longest context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from fastchat.engine.batching.step import Step
from fastchat.engine.network.adapters import Stack
from fastchat.engine.network.decode_graphs import DecodeGraphs, Layers, record_on_cuda

if TYPE_CHECKING:
    from fastchat.engine.network.yuan import Network


@dataclass(frozen=True, slots=True)
class TorchCache:
    """Keys and values of one layer, each (blocks * block_size, N, D)."""

    keys: Tensor
    values: Tensor
    block_size: int


class TorchOps:
    """See `fastchat.engine.network.yuan.Ops`.

    Args:
        device: to compute on.
        dtype: of weights, states and cache.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        # What all layers of a step ask for alike, with the step that it was made for.
        self._of_step: tuple[Step | None, Any] = (None, None)

    def matrix(
        self,
        weight: Tensor,
        row_order: Tensor | None = None,
        *,
        fine: bool = False,  # noqa: ARG002  (all matrices are held in the same type)
    ) -> Any:
        """See `Ops.matrix`."""
        ordered = weight if row_order is None else weight[row_order]
        return ordered.to(self.device, self.dtype)

    def linear(
        self,
        states: Tensor,
        matrix: Any,
        *,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """See `Ops.linear`."""
        product = linear(states, matrix, bias)
        return product if add_to is None else add_to.add_(product)

    def low_rank(self, stack: Stack) -> Stack:
        """See `Ops.low_rank`."""
        return Stack(
            stack.down.to(self.device, self.dtype),
            stack.up.to(self.device, self.dtype),
            stack.owners.to(self.device),
        )

    def add_low_rank(
        self, states: Tensor, low_rank: Stack, adapters: Tensor, output: Tensor
    ) -> Tensor:
        """See `Ops.add_low_rank`: a row's sums with other adapters' ranks are set to zero."""
        low = linear(states, low_rank.down) * (adapters[:, None] == low_rank.owners)  # (T, R)
        return output.add_(linear(low, low_rank.up))

    def rms_norm(
        self, states: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
    ) -> Tensor:
        """See `Ops.rms_norm`."""
        exact = (states if residual is None else states + residual).float()
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
        return exact.to(weight.dtype) * weight

    def filter_pairs(self, states: Tensor, previous: Tensor, kept: Tensor) -> Tensor:
        """See `Ops.filter_pairs`."""
        index = previous.long()
        before = states[index.clamp(min=0)]
        before = torch.where((index == -1)[:, None], 0, before)
        before = torch.where((index < -1)[:, None], kept[(-2 - index).clamp(min=0)], before)
        return torch.cat([before, states], dim=1)

    def silu_mul(self, up_gate: Tensor) -> Tensor:
        """See `Ops.silu_mul`."""
        up, gate = up_gate.chunk(2, dim=1)
        return silu(up) * gate

    def new_cache(self, blocks: int, heads: int, head_dim: int, block_size: int) -> TorchCache:
        """See `Ops.new_cache`."""
        keys, values = (
            torch.zeros(blocks * block_size, heads, head_dim, dtype=self.dtype, device=self.device)
            for _ in range(2)
        )
        return TorchCache(keys, values, block_size)

    def fuse(self, network: Network) -> Layers | None:
        """See `Ops.fuse`: recorded steps on a GPU."""
        if self.device.type != "cuda":
            return None
        return DecodeGraphs(
            network.one_by_one,
            spare_block=network.spare_block,
            spare_place=network.spare_place,
            block_size=network.block_size,
            record=record_on_cuda,
        )

    def attend(
        self, qk: Tensor, value: Tensor, cache: TorchCache, angles: Tensor, step: Step, heads: int
    ) -> Tensor:
        """See `Ops.attend`."""
        rotated = _rotate(
            rearrange(qk, "t (two n d) -> t two n d", two=2, n=heads), angles[step.positions.long()]
        )
        query, key = rotated.unbind(1)  # (T, N, D)
        cache.keys[step.slots] = key
        cache.values[step.slots] = rearrange(value, "t (n d) -> t n d", n=heads)
        if max(step.sizes) == 1:
            return _attend_one_each(query, cache, self._seen(step, cache)).flatten(1)
        parts = zip(torch.split(query, list(step.sizes)), self._places(step, cache), strict=True)
        return torch.cat([_attend_one(part, cache, places) for part, places in parts]).flatten(1)

    def _seen(self, step: Step, cache: TorchCache) -> tuple[Tensor, Tensor]:
        """(R, C) where in the cache each context lies, and which of these places are its."""
        if self._of_step[0] is not step:
            places = _all_places(step, cache.block_size)
            columns = torch.arange(places.shape[1], device=places.device)
            self._of_step = step, (places, columns < step.contexts[:, None])
        found: tuple[Tensor, Tensor] = self._of_step[1]
        return found

    def _places(self, step: Step, cache: TorchCache) -> list[Tensor]:
        """For each sequence, where in the cache its context lies."""
        if self._of_step[0] is not step:
            contexts = step.contexts.tolist()
            rows = _all_places(step, cache.block_size)
            self._of_step = step, [row[:size] for row, size in zip(rows, contexts, strict=True)]
        found: list[Tensor] = self._of_step[1]
        return found


def _rotate(states: Tensor, angles: Tensor) -> Tensor:
    """(T, 2, N, D) turned by its positions' angles (T, D), in float32."""
    cos, sin = angles[:, None, None].chunk(2, dim=-1)
    first, second = states.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(states.dtype)


def _all_places(step: Step, block_size: int) -> Tensor:
    """(R, C) where in the cache each token of each context is."""
    offsets = torch.arange(block_size, device=step.tables.device)
    return (step.tables.long()[:, :, None] * block_size + offsets).flatten(1)


def _attend_one_each(query: Tensor, cache: TorchCache, seen: tuple[Tensor, Tensor]) -> Tensor:
    """One row of each sequence, (R, N, D) -> (R, N, D)."""
    places, mask = seen
    keys, values = (x[places].transpose(1, 2) for x in (cache.keys, cache.values))  # (R, N, C, D)
    output = scaled_dot_product_attention(
        query[:, :, None], keys, values, attn_mask=mask[:, None, None]
    )
    return output[:, :, 0]


def _attend_one(query: Tensor, cache: TorchCache, places: Tensor) -> Tensor:
    """The last rows of one sequence, (t, N, D) -> (t, N, D)."""
    keys, values = (x[places].transpose(0, 1) for x in (cache.keys, cache.values))  # (N, C, D)
    rows, context = query.shape[0], len(places)
    seen = torch.ones(rows, context, dtype=torch.bool, device=query.device).tril(context - rows)
    output = scaled_dot_product_attention(
        query.transpose(0, 1)[None], keys[None], values[None], attn_mask=seen
    )
    return output[0].transpose(0, 1)
