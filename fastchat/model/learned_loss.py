"""The loss of learned tokens only, without the logits of all the others.

Shapes: K learned tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 256
"""Tokens whose logits exist at once: [256, 135040] in place of [tokens, 135040]."""


def summed_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross entropies of `hidden @ weight.T`, in chunks; a scalar.

    Args:
        hidden: (K, H), what the tokens are predicted from.
        weight: (V, H), the output matrix.
        targets: (K,) the learned tokens.
    """
    hidden, weight = _as_computed(hidden, weight)
    if not targets.numel():
        return hidden.sum() * 0.0  # nothing to learn, but every process takes part
    if hidden.dtype != torch.float32:
        return token_cross_entropy(hidden, weight, targets).sum()
    # Torch's own choice of chunks is a handful of rows, which is many times slower.
    options = nn.LinearCrossEntropyOptions(
        chunking_method=None, batch_chunk_size=CHUNK, acc_policy="compact"
    )
    return nn.functional.linear_cross_entropy(
        hidden, weight, targets, reduction="sum", options=options
    )


def token_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Each token's cross entropy, its negative log probability, in chunks; (K,) float32.

    Args:
        hidden: (K, H), what the tokens are predicted from.
        weight: (V, H), the output matrix.
        targets: (K,) the learned tokens.
    """
    inputs = _as_computed(hidden, weight)
    losses: Tensor = _TokenCrossEntropy.apply(*inputs, targets)  # type: ignore[no-untyped-call]
    return losses


def _as_computed(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden, weight
    dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype)


class _TokenCrossEntropy(torch.autograd.Function):
    # Torch's own chunked op has this form, too, but rounds the losses to the format of
    # `hidden`: in bfloat16 the sum over an answer would be off by more than answers differ.

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        chunks = zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True)
        return torch.cat(
            [
                nn.functional.cross_entropy(
                    nn.functional.linear(states, weight).float(), tokens, reduction="none"
                )
                for states, tokens in chunks
            ]
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        hidden, weight, targets = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        learns_weight = ctx.needs_input_grad[1]
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if learns_weight else None
        parts = (torch.split(x, CHUNK) for x in (hidden, targets, grads[0], to_hidden))
        for states, tokens, grad, out in zip(*parts, strict=True):
            slopes = nn.functional.linear(states, weight).float().softmax(dim=-1)
            slopes[torch.arange(len(tokens), device=tokens.device), tokens] -= 1
            slopes = slopes.mul_(grad[:, None]).to(hidden.dtype)
            out.copy_(slopes @ weight)
            if to_weight is not None:
                to_weight += slopes.T @ states
        return to_hidden, None if to_weight is None else to_weight.to(weight.dtype), None


class OutputMatrix(nn.Linear):
    """The language model's head: logits of all tokens, or the loss of learned ones.

    The loss is computed here, not beside the module, so that engines which gather a
    module's sharded weights when it is called gather these.
    """

    def forward(
        self, hidden: Tensor, targets: Tensor | None = None, reduction: str = "sum"
    ) -> Tensor:
        """Logits (..., V) of hidden (..., H); or, with targets (K,), their loss.

        Args:
            hidden: the states.
            targets: the learned tokens.
            reduction: "sum", or "none" for each token's loss (K,).
        """
        if targets is None:
            return super().forward(hidden)
        loss = token_cross_entropy if reduction == "none" else summed_cross_entropy
        return loss(hidden, self.weight, targets)
