"""From a published checkpoint's weights to those of the network in vLLM.

Knows names and shapes; no vllm.

Shapes: H hidden, N heads, D = H / N.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from fastchat.errors import CheckpointError

_QUERY, _KEY = ".self_attn.q_proj.weight", ".self_attn.k_proj.weight"


def for_vllm(weights: Iterable[tuple[str, Tensor]], head_dim: int) -> Iterator[tuple[str, Tensor]]:
    """The published weights, with q and k in the order of heads and convolutions as matrices.

    The two published matrices hold queries and keys of all heads in turn. Regrouped, the first
    is all queries and the second all keys, so that each can be cut by heads.

    Args:
        weights: (name, weight) in any order.
        head_dim: D.

    Raises:
        CheckpointError: there is a q_proj without its k_proj, or the reverse.
    """
    lonely: dict[str, Tensor] = {}
    for name, weight in weights:
        other = _partner(name)
        if other is None:
            yield name, _as_matrix(name, weight)
        elif other not in lonely:
            lonely[name] = weight
        else:
            found = {name: weight, other: lonely.pop(other)}
            query, key = sorted(found, reverse=True)
            yield from zip((query, key), regrouped(found[query], found[key], head_dim), strict=True)
    if lonely:
        missing = ", ".join(sorted(filter(None, map(_partner, lonely)))[:5])
        raise CheckpointError(
            f"The checkpoint lacks the weights {missing}.",
            hint="Check that all weight files are there.",
        )


def regrouped(query: Tensor, key: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """The published q and k matrices (H, H) as queries and keys (H, H), head after head."""
    mixed = torch.cat([query, key])  # (2H, H)
    queries, keys = rearrange(mixed, "(n two d) h -> two (n d) h", two=2, d=head_dim)
    return queries, keys


def _partner(name: str) -> str | None:
    for mine, other in ((_QUERY, _KEY), (_KEY, _QUERY)):
        if name.endswith(mine):
            return name.removesuffix(mine) + other
    return None


def _as_matrix(name: str, weight: Tensor) -> Tensor:
    """A convolution's weight (out, in, 2, 1) as (out, 2 in), the two taps of a channel together."""
    if name.endswith(("lf_gate.conv1.weight", "lf_gate.conv2.weight")):
        return weight.flatten(1)
    return weight
