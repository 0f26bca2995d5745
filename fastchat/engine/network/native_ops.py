"""The network's operations on a processor, by the project's own kernels.

States are float32 whatever the weights are held in, and a row's result has the same bits
alone and in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastchat.engine.batching.step import Step
from fastchat.engine.native.kernels import Kernels
from fastchat.engine.native.layers import LayerParts, LayerStack
from fastchat.engine.native.low_rank import LowRankKernel, LowRankWeights, low_rank_weights
from fastchat.engine.native.packed import PackedKind, PackedMatrix
from fastchat.engine.network.adapters import Stack
from fastchat.engine.network.decode_graphs import Layers
from fastchat.engine.network.yuan import Layer, LayerCache, Network
from fastchat.model.local_filter import FILTER_NORM_EPS

Cache = tuple[Tensor, Tensor]


class NativeOps:
    """See `fastchat.engine.network.yuan.Ops`.

    Args:
        kernels: with the threads to use.
        kind: how matrices are held.
        cache_dtype: of keys and values.
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, kernels: Kernels, kind: PackedKind, cache_dtype: torch.dtype) -> None:
        self._kernels = kernels
        self._low_rank = LowRankKernel(kernels.pool)
        self._kind = kind
        self._cache_dtype = cache_dtype

    def matrix(
        self, weight: Tensor, row_order: Tensor | None = None, *, fine: bool = False
    ) -> PackedMatrix:
        """See `Ops.matrix`."""
        kind: PackedKind = "int8" if fine and self._kind == "int4" else self._kind
        return self._kernels.pack(weight, kind, row_order=row_order)

    def linear(
        self,
        states: Tensor,
        matrix: Any,
        *,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """See `Ops.linear`."""
        out = states.new_empty(len(states), matrix.outputs) if add_to is None else add_to
        self._kernels.matmul(states, matrix, out, add=add_to is not None, bias=bias)
        return out

    def low_rank(self, stack: Stack) -> LowRankWeights:
        """See `Ops.low_rank`."""
        return low_rank_weights(stack.down, stack.up, stack.owners)

    def add_low_rank(
        self, states: Tensor, low_rank: LowRankWeights, adapters: Tensor, output: Tensor
    ) -> Tensor:
        """See `Ops.add_low_rank`."""
        self._low_rank.add(states, low_rank, adapters, output)
        return output

    def rms_norm(
        self, states: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
    ) -> Tensor:
        """See `Ops.rms_norm`."""
        out = torch.empty_like(states)
        self._kernels.rms_norm(states, weight, eps, out, residual=residual)
        return out

    def filter_pairs(self, states: Tensor, previous: Tensor, kept: Tensor) -> Tensor:
        """See `Ops.filter_pairs`."""
        out = states.new_empty(len(states), 2 * states.shape[1])
        self._kernels.filter_pairs(states, previous, kept, out)
        return out

    def silu_mul(self, up_gate: Tensor) -> Tensor:
        """See `Ops.silu_mul`."""
        out = up_gate.new_empty(len(up_gate), up_gate.shape[1] // 2)
        self._kernels.silu_mul(up_gate, out)
        return out

    def new_cache(self, blocks: int, heads: int, head_dim: int, block_size: int) -> Cache:
        """See `Ops.new_cache`."""
        return self._kernels.new_cache(
            blocks, heads, head_dim, dtype=self._cache_dtype, block_size=block_size
        )

    def attend(
        self, qk: Tensor, value: Tensor, cache: Cache, angles: Tensor, step: Step, heads: int
    ) -> Tensor:
        """See `Ops.attend`."""
        keys, values = cache
        size = value.shape[1] // heads
        by_head = qk.view(len(qk), 2, heads, size)
        query, key = by_head[:, 0], by_head[:, 1]
        new = value.view(len(value), heads, size)
        self._kernels.rope_store(query, key, new, step.positions, angles, keys, values, step.slots)
        out = torch.empty_like(value)
        self._kernels.attend(
            query,
            keys,
            values,
            step.starts,
            step.contexts,
            step.tables,
            out,
            scale=size**-0.5,
        )
        return out

    def fuse(self, network: Network) -> Layers:
        """See `Ops.fuse`."""
        stack = LayerStack(
            self._kernels.pool,
            [_parts(*pair) for pair in zip(network.layers, network.caches, strict=True)],
            heads=network.config.num_attention_heads,
            angles=network.angles,
            eps=network.config.rms_norm_eps,
            filter_eps=FILTER_NORM_EPS,
        )

        def run(states: Tensor, step: Step, rows: Tensor | None) -> Tensor:
            return stack.run(
                states,
                positions=step.positions,
                previous=step.previous,
                starts=step.starts,
                contexts=step.contexts,
                tables=step.tables,
                slots=step.slots,
                state_rows=step.state_rows,
                state_places=step.state_places,
                rows=rows,
            )

        return run


def _parts(layer: Layer, cache: LayerCache) -> LayerParts:
    keys, values = cache.attention
    inputs, narrow = cache.states
    vectors = {
        "conv1_bias": layer.conv1_bias,
        "conv2_bias": layer.conv2_bias,
        "filter_norm": layer.filter_norm,
        "input_norm": layer.input_norm,
        "mlp_norm": layer.mlp_norm,
    }
    return LayerParts(layer.matrices, vectors, keys, values, inputs, narrow)
