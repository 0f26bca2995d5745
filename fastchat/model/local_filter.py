"""Yuan2's localized filtering and its norm: the parts that Llama's frame does not have.

Wu et al., "YUAN 2.0: A Large Language Model with Localized Filtering-based Attention",
2023, arXiv:2311.15786. Knows nothing of attention or of whole models.

Shapes: B batch, S new tokens, H hidden, C channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.cache_utils import Cache

from fastchat.model.configuration_yuan import FILTER_NORM_EPS, YuanConfig
from fastchat.model.predecessors import Predecessors, take


class YuanRMSNorm(nn.Module):
    """Root-mean-square norm with fp32 statistics (Zhang and Sennrich, 2019)."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        exact = hidden_states.float()
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return exact.to(self.weight.dtype) * self.weight


class YuanPairConv(nn.Conv2d):
    """A convolution over each token and the one before it, in the published layout.

    A kernel as high as its input, (2, 1); tap 0 is the earlier token. Computed as one matrix
    product, which is several times faster than a convolution on the shapes that occur here.
    Made as any Conv2d is, as adapters make convolutions of their base's type.
    """

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, in, 2, S) pairs of earlier and current states -> (B, out, 1, S)."""
        weight = rearrange(self.weight, "out channel tap 1 -> out (tap channel)")
        rows = rearrange(pairs, "b channel tap s -> b s (tap channel)")
        return rearrange(nn.functional.linear(rows, weight, self.bias), "b s out -> b out 1 s")


class YuanLocalFilter(nn.Module):
    """Localized filtering: each token mixed with the two before it."""

    def __init__(self, config: YuanConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.conv1 = YuanPairConv(config.hidden_size, config.hidden_size // 2, kernel_size=(2, 1))
        self.conv2 = YuanPairConv(config.hidden_size // 2, config.hidden_size, kernel_size=(2, 1))
        self.output_layernorm = YuanRMSNorm(config.hidden_size, eps=FILTER_NORM_EPS)

    def forward(
        self, hidden_states: Tensor, predecessors: Predecessors | None, cache: Cache | None
    ) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        narrow = self._stage(0, self.conv1, hidden_states, predecessors, cache)  # (B, S, H/2)
        wide = self._stage(1, self.conv2, narrow, predecessors, cache)  # (B, S, H)
        filtered: Tensor = self.output_layernorm(wide + hidden_states)
        return filtered

    def _stage(
        self,
        stage: int,
        conv: nn.Module,
        states: Tensor,
        predecessors: Predecessors | None,
        cache: Cache | None,
    ) -> Tensor:
        before = self._state_before(stage, states, cache)  # (B, 1, C)
        row = torch.cat([before, states], dim=1)  # (B, S + 1, C)
        previous = row[:, :-1] if predecessors is None else take(row, predecessors.previous)
        if cache is not None:
            latest = predecessors.latest if predecessors is not None else None
            seen = states if latest is None else take(row, latest)
            cache.update_conv_state(
                seen.transpose(1, 2), self.layer_idx, state_idx=stage, conv_kernel_size=1
            )
        pairs = torch.stack([previous, states], dim=2)  # (B, S, 2, C)
        filtered: Tensor = conv(rearrange(pairs, "b s tap c -> b c tap s"))
        return rearrange(filtered, "b c 1 s -> b s c")

    def _state_before(self, stage: int, states: Tensor, cache: Cache | None) -> Tensor:
        if cache is not None and cache.has_previous_state(self.layer_idx, stage):
            kept: Tensor = cache.layers[self.layer_idx].conv_states[stage]
            return kept[..., -1:].transpose(1, 2)
        # Nothing comes before: exactly zero in both stages, not the first stage's bias.
        return states.new_zeros(states.shape[0], 1, states.shape[2])
