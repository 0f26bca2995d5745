"""Yuan2's forward pass over a cache in blocks, for many sequences in one flat row.

The same network as `fastchat.model.modeling_yuan`, laid out for serving: query and key rows
are regrouped by heads when the weights are read, so that nothing is rearranged later, and
what is computed with is exchangeable (`Ops`). Knows nothing of requests.

Shapes: T tokens of the step, H hidden, N heads, D = H / N, F intermediate, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from fastchat.engine.batching.step import Step
from fastchat.engine.network.adapters import Adapter, Stack, flat, stack
from fastchat.engine.network.decode_graphs import Layers
from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.local_filter import FILTER_NORM_EPS
from fastchat.model.published_weights import layer_shapes

Read = Callable[[str], Tensor]
"""From a weight's published name to the tensor."""

Stacks = list[dict[str, Any]]
"""What adapters add to the matrices of each layer, in the form that `Ops.low_rank` gives it."""


class Ops(Protocol):
    """What the network computes with, on one kind of device.

    Matrices and a layer's keys and values have a form of the implementation's own. States
    are tensors (rows, columns) of `dtype` on `device`.
    """

    dtype: torch.dtype
    device: torch.device

    def matrix(self, weight: Tensor, row_order: Tensor | None = None, *, fine: bool = False) -> Any:
        """Takes over a matrix (out, in), its rows in another order if one is given.

        Args:
            fine: whether it suffers from fewer than 8 bits a weight.
        """
        ...

    def linear(
        self,
        states: Tensor,
        matrix: Any,
        *,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """(T, in) -> (T, out); added to `add_to` in place if that is given."""
        ...

    def low_rank(self, stack: Stack) -> Any:
        """Takes over what adapters add to a matrix."""
        ...

    def add_low_rank(
        self, states: Tensor, low_rank: Any, adapters: Tensor, output: Tensor
    ) -> Tensor:
        """Adds what each row's adapter adds, in place if that is faster.

        A row's result does not depend on what else is loaded or asked for.

        Args:
            states: (T, in).
            adapters: (T,) int64 number of each row's adapter, -1 for none.
            output: (T, out).
        """
        ...

    def rms_norm(
        self, states: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
    ) -> Tensor:
        """(T, H) -> (T, H), of the sum with `residual` if that is given."""
        ...

    def filter_pairs(self, states: Tensor, previous: Tensor, kept: Tensor) -> Tensor:
        """(T, C) -> (T, 2C): before each token's state that of the token before it.

        Args:
            previous: see `Step.previous`.
            kept: (places, C) states of earlier steps.
        """
        ...

    def silu_mul(self, up_gate: Tensor) -> Tensor:
        """(T, 2F) -> (T, F): silu of the first half, times the second."""
        ...

    def new_cache(self, blocks: int, heads: int, head_dim: int, block_size: int) -> Any:
        """Room for one layer's keys and values."""
        ...

    def attend(
        self, qk: Tensor, value: Tensor, cache: Any, angles: Tensor, step: Step, heads: int
    ) -> Tensor:
        """Rotates, stores keys and values, and attends.

        Args:
            qk: (T, 2H) queries, then keys, each by heads.
            value: (T, H).
            angles: (positions, D) float32: cosines of D / 2 angles, then their sines.

        Returns:
            (T, H).
        """
        ...

    def fuse(self, network: Network) -> Layers | None:
        """A faster way through all layers for steps without adapters, if there is one."""
        ...


@dataclass(frozen=True, slots=True)
class Matrix:
    """How one of the network's matrices is made of published ones, one behind the other.

    Attributes:
        modules: their names in a layer.
        fine: see `Ops.matrix`.
        by_heads: whether its rows are regrouped, queries first.
    """

    modules: tuple[str, ...]
    fine: bool = False
    by_heads: bool = False


MATRICES = {
    "conv1": Matrix(("self_attn.lf_gate.conv1",), fine=True),
    "conv2": Matrix(("self_attn.lf_gate.conv2",), fine=True),
    "qk": Matrix(("self_attn.q_proj", "self_attn.k_proj"), by_heads=True),
    "value": Matrix(("self_attn.v_proj",)),
    "output": Matrix(("self_attn.o_proj",)),
    "up_gate": Matrix(("mlp.up_proj", "mlp.gate_proj")),
    "down": Matrix(("mlp.down_proj",)),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights.

    Attributes:
        matrices: by their names in `MATRICES`, in the form that `Ops.matrix` gives them.
        conv1_bias, conv2_bias, filter_norm, input_norm, mlp_norm: vectors.
    """

    matrices: dict[str, Any]
    conv1_bias: Tensor
    conv2_bias: Tensor
    filter_norm: Tensor
    input_norm: Tensor
    mlp_norm: Tensor


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps of earlier steps: keys and values, and the filter's two states."""

    attention: Any
    states: tuple[Tensor, Tensor]


class Network:
    """The weights of one model, and its cache.

    Args:
        config: of the model.
        read: gives the weights, each asked for once, layer by layer.
        ops: what is computed with.
        blocks: of the cache.
        block_size: tokens a block.
        scratch: places for filter states besides one a block.

    Attributes:
        layers, caches: of each layer.
        angles: (positions, D), see `Ops.attend`.
        spare_block, spare_place: one more of each, which nothing is read from.
        adapters: see `stacks`; may be replaced between two steps.
    """

    def __init__(
        self,
        config: YuanConfig,
        read: Read,
        ops: Ops,
        *,
        blocks: int,
        block_size: int,
        scratch: int,
    ) -> None:
        self.config = config
        self.ops = ops
        self.block_size = block_size
        self.spare_block, self.spare_place = blocks, blocks + scratch
        # The largest matrix first, while there is least beside it.
        self._head = ops.matrix(read("lm_head.weight"), fine=True)
        self.layers = [
            _read_layer(read, f"model.layers.{number}.", config, ops)
            for number in range(config.num_hidden_layers)
        ]
        self._norm = _vector(read("model.norm.weight"), ops)
        # A lookup reads a row or two: on a CPU it stays where it is, in the file.
        self._embedding = read("model.embed_tokens.weight").to(ops.device)
        self.adapters: Stacks = []
        self.caches = [self._new_cache() for _ in self.layers]
        self.angles = _angles(config).to(ops.device)
        self._fused = ops.fuse(self)

    def stacks(self, adapters: Mapping[int, Adapter]) -> Stacks:
        """Makes what `adapters` is to be set to, for rows to name them in `Step.adapters`.

        Any thread may call it.
        """
        outputs = {
            module.removesuffix(".weight"): shape[0] for module, shape in layer_shapes(self.config)
        }

        def made(number: int, name: str) -> Stack | None:
            parts = [(module, outputs[module]) for module in MATRICES[name].modules]
            order = head_order(self.config) if MATRICES[name].by_heads else None
            return stack(adapters, number, parts, order)

        return [
            {
                name: self.ops.low_rank(found)
                for name in MATRICES
                if (found := made(number, name)) is not None
            }
            for number in range(len(self.layers))
        ]

    def forward(self, step: Step, rows: Tensor | None = None) -> Tensor:
        """Computes a step and keeps what later ones need.

        Args:
            step: on the network's device.
            rows: (Q,) int64 those whose states are wanted; all if None.

        Returns:
            (Q, H) states after the final norm.
        """
        ops = self.ops
        states = self._embedding[step.token_ids].to(ops.device, ops.dtype)  # (T, H)
        if rows is not None and len(rows) == len(states):
            rows = None
        if self._fused is not None and step.adapters is None:
            states = self._fused(states, step, rows)
        else:
            states = self.one_by_one(states, step, rows)
        return ops.rms_norm(states, self._norm, self.config.rms_norm_eps)

    def one_by_one(self, states: Tensor, step: Step, rows: Tensor | None) -> Tensor:
        """Takes states (T, H) through all layers; (Q, H) of the wanted rows, all if None."""
        ops, config = self.ops, self.config
        adapters = step.adapters
        last = len(self.layers) - 1
        for number, (layer, cache) in enumerate(zip(self.layers, self.caches, strict=True)):
            normed = ops.rms_norm(states, layer.input_norm, config.rms_norm_eps)
            filtered = self._filter(normed, number, cache, step)
            attended = ops.attend(
                self._linear(number, "qk", filtered, adapters),
                self._linear(number, "value", normed, adapters),
                cache.attention,
                self.angles,
                step,
                config.num_attention_heads,
            )
            if number == last and rows is not None:
                # Nothing reads the other rows any more.
                states, attended = states[rows], attended[rows]
                adapters = None if adapters is None else adapters[rows]
            states = self._linear(number, "output", attended, adapters, add_to=states)
            normed = ops.rms_norm(states, layer.mlp_norm, config.rms_norm_eps)
            gated = ops.silu_mul(self._linear(number, "up_gate", normed, adapters))
            states = self._linear(number, "down", gated, adapters, add_to=states)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """(Q, H) after the final norm -> (Q, V) float32."""
        return self.ops.linear(states, self._head).float()

    def move_states(self, source: Tensor, target: Tensor) -> None:
        """Copies filter states from places (n,) to others."""
        for cache in self.caches:
            for kept in cache.states:
                kept[target] = kept[source]

    def _linear(
        self,
        layer: int,
        name: str,
        states: Tensor,
        adapters: Tensor | None,
        *,
        bias: Tensor | None = None,
        add_to: Tensor | None = None,
    ) -> Tensor:
        """A product with one of the layer's matrices, and with what adapters add to it."""
        ops = self.ops
        matrix = self.layers[layer].matrices[name]
        output = ops.linear(states, matrix, bias=bias, add_to=add_to)
        if adapters is None or (added := self.adapters[layer].get(name)) is None:
            return output
        return ops.add_low_rank(states, added, adapters, output)

    def _filter(self, normed: Tensor, number: int, cache: LayerCache, step: Step) -> Tensor:
        """Localized filtering: each token mixed with the two before it; (T, H) -> (T, H)."""
        ops, layer = self.ops, self.layers[number]
        inputs, narrow = cache.states
        pairs = ops.filter_pairs(normed, step.previous, inputs)
        middle = self._linear(  # (T, H / 2)
            number, "conv1", pairs, step.adapters, bias=layer.conv1_bias
        )
        pairs = ops.filter_pairs(middle, step.previous, narrow)
        wide = self._linear(number, "conv2", pairs, step.adapters, bias=layer.conv2_bias)
        # After the reads: a sequence's state is kept where its earlier one was.
        inputs[step.state_places] = normed[step.state_rows]
        narrow[step.state_places] = middle[step.state_rows]
        return ops.rms_norm(wide, layer.filter_norm, FILTER_NORM_EPS, residual=normed)

    def _new_cache(self) -> LayerCache:
        config, ops = self.config, self.ops
        sizes = (config.hidden_size, config.hidden_size // 2)
        first, second = (
            torch.zeros(self.spare_place + 1, size, dtype=ops.dtype, device=ops.device)
            for size in sizes
        )
        attention = ops.new_cache(
            self.spare_block + 1, config.num_attention_heads, config.head_dim, self.block_size
        )
        return LayerCache(attention, (first, second))


def _read_layer(read: Read, prefix: str, config: YuanConfig, ops: Ops) -> Layer:
    def vector(name: str) -> Tensor:
        return _vector(read(prefix + name), ops)

    def matrix(made: Matrix) -> Any:
        parts = [flat(read(f"{prefix}{module}.weight")) for module in made.modules]
        return ops.matrix(
            parts[0] if len(parts) == 1 else torch.cat(parts),
            head_order(config) if made.by_heads else None,
            fine=made.fine,
        )

    return Layer(
        matrices={name: matrix(made) for name, made in MATRICES.items()},
        conv1_bias=vector("self_attn.lf_gate.conv1.bias"),
        conv2_bias=vector("self_attn.lf_gate.conv2.bias"),
        filter_norm=vector("self_attn.lf_gate.output_layernorm.weight"),
        input_norm=vector("input_layernorm.weight"),
        mlp_norm=vector("post_attention_layernorm.weight"),
    )


def head_order(config: YuanConfig) -> Tensor:
    """(2H,) which rows of the published q and k matrices, one after the other, are queries.

    The published blocks of D rows alternate: query of head 0, key of head 0, and so on.
    """
    rows = torch.arange(2 * config.hidden_size)
    return rearrange(rows, "(n two d) -> (two n d)", two=2, d=config.head_dim)


def _vector(weight: Tensor, ops: Ops) -> Tensor:
    return weight.to(ops.device, ops.dtype, copy=True)


def _angles(config: YuanConfig) -> Tensor:
    """(positions, D) cosines and sines of the rotary angles, in float32 (Su et al., 2021)."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    inverse = config.default_theta**-half
    angles = torch.arange(config.max_position_embeddings)[:, None] * inverse
    return torch.cat([angles.cos(), angles.sin()], dim=1)
