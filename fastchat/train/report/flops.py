"""Useful floating-point operations of training: what the mathematics asks for, and no more.

Real tokens, logits at learned places, unmasked pairs of attention; nothing for padding,
for masked pairs or for layers that checkpointing computes again. A product with a weight
takes 2 operations a weight and token, and as much again for each of its two gradients.
Norms, activations and rotations are left out, as is usual. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FORWARD, _INPUT_GRADIENT, _WEIGHT_GRADIENT = 2, 2, 2
_FROZEN = _FORWARD + _INPUT_GRADIENT
_TRAINED = _FROZEN + _WEIGHT_GRADIENT

_LLAMA_LIKE = frozenset(
    {"gemma", "gemma2", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3"}
)
"""Model types with q, k, v, o, a gated feed-forward of three matrices and an output matrix."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a token meets in a dense network.

    Attributes:
        layers: how many.
        layer_weights: of one layer's matrices, all of which every token is multiplied by.
        attention_width: heads x dimensions of a head.
        head_weights: of the output matrix.
    """

    layers: int
    layer_weights: int
    attention_width: int
    head_weights: int


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape of a network, from what its config.json says; None if it is not known.

    Args:
        config: a config as a map, such as `config.to_dict()`.
    """
    kind = config.get("model_type")
    if kind != "yuan" and kind not in _LLAMA_LIKE:
        return None
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    shared = config.get("num_key_value_heads") or heads
    width = heads * head
    weights = 2 * hidden * width + 2 * hidden * shared * head  # q, o; k, v
    weights += 3 * hidden * config["intermediate_size"]
    if kind == "yuan":  # the filter: two convolutions over two tokens, to half the size and back
        weights += 2 * (2 * hidden * (hidden // 2))
    return Shape(
        layers=config["num_hidden_layers"],
        layer_weights=weights,
        attention_width=width,
        head_weights=hidden * config["vocab_size"],
    )


def useful_flops(
    config: Mapping[str, Any],
    tokens: int,
    kept: int,
    attention_pairs: int,
    *,
    adapter_weights: int | None = None,
) -> float:
    """Operations of one forward and backward pass; 0 for a network of unknown shape.

    Args:
        config: the network's, as a map.
        tokens: read by the model, padding left out.
        kept: places with a label, where logits are needed.
        attention_pairs: (query, key) that attention looks at, in one head of one layer:
            n (n + 1) / 2 for a row of n tokens.
        adapter_weights: of a LoRA adapter on frozen weights; None if all are trained. A
            frozen weight has no gradient of its own, but its input has.
    """
    shape = shape_of(config)
    if shape is None:
        return 0.0
    own = _TRAINED if adapter_weights is None else _FROZEN
    through_layers = own * shape.layers * shape.layer_weights * tokens
    through_head = own * shape.head_weights * kept
    # Scores and weighted values: two products a pair, each with two gradients of its inputs.
    attention = 2 * _TRAINED * shape.layers * shape.attention_width * attention_pairs
    adapter = _TRAINED * (adapter_weights or 0) * tokens
    return float(through_layers + through_head + attention + adapter)
