"""Holds freshly loaded kernels against torch on small inputs, before an engine trusts them."""

from __future__ import annotations

import torch

from fastchat.engine.native.build import NativeUnavailableError
from fastchat.engine.native.kernels import BLOCK_SIZE, Kernels
from fastchat.engine.native.low_rank import LowRankKernel, low_rank_weights
from fastchat.engine.native.packed import KINDS, PackedKind

_SEED = 7
# Of the largest number of what is expected; rounding the weights costs the rest.
_LIMITS: dict[PackedKind, float] = {
    "float32": 1e-5,
    "bfloat16": 1e-5,
    "int8": 0.02,
    "int4": 0.2,
}


def check(kernels: Kernels | None = None) -> None:
    """Runs every kernel once.

    Args:
        kernels: those of the library for this machine if None.

    Raises:
        NativeUnavailableError: they cannot be had, or one gives another result than torch.
    """
    kernels = kernels or Kernels(1)
    generator = torch.Generator().manual_seed(_SEED)
    for kind in KINDS:
        _check_matmul(kernels, kind, generator)
    _check_rows(kernels, generator)
    _check_low_rank(kernels, generator)
    for dtype in (torch.float32, torch.bfloat16):
        _check_attention(kernels, dtype, generator)


def _random(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def _compare(what: str, got: torch.Tensor, want: torch.Tensor, limit: float) -> None:
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= limit:
        raise NativeUnavailableError(
            f"the compiled kernel for {what} is off by {error:.1e} of its largest value here "
            f"(at most {limit:.0e} is allowed)"
        )


def _check_matmul(kernels: Kernels, kind: PackedKind, generator: torch.Generator) -> None:
    weight = _random(150, 300, generator=generator).to(torch.bfloat16)
    packed = kernels.pack(weight, kind)
    x = _random(30, 300, generator=generator)
    out = torch.empty(30, 150)
    kernels.matmul(x, packed, out)
    _compare(f"{kind} products", out, x @ weight.float().T, _LIMITS[kind])
    for count in (1, 2, 3, 4, 5, 6):
        some = torch.empty(count, 150)
        kernels.matmul(x[:count].contiguous(), packed, some)
        if not torch.equal(some, out[:count]):
            raise NativeUnavailableError(f"{kind} products of {count} rows and of 30 differ here")


def _check_rows(kernels: Kernels, generator: torch.Generator) -> None:
    x, weight = _random(5, 36, generator=generator), _random(36, generator=generator)
    out = torch.empty(5, 36)
    kernels.rms_norm(x, weight, 1e-6, out)
    want = torch.nn.functional.rms_norm(x, (36,), weight, 1e-6)
    _compare("norms", out, want, 1e-5)
    gated = torch.empty(5, 18)
    kernels.silu_mul(x, gated)
    _compare("gates", gated, torch.nn.functional.silu(x[:, :18]) * x[:, 18:], 1e-5)
    pairs = torch.empty(5, 72)
    previous = torch.tensor([-1, 0, -2, 2, -3], dtype=torch.int32)
    stored = _random(2, 36, generator=generator)
    kernels.filter_pairs(x, previous, stored, pairs)
    before = torch.stack([torch.zeros(36), x[0], stored[0], x[2], stored[1]])
    _compare("filter taps", pairs, torch.cat([before, x], dim=1), 0.0)


def _check_low_rank(kernels: Kernels, generator: torch.Generator) -> None:
    x, down = _random(6, 36, generator=generator), _random(5, 36, generator=generator)
    up, owners = _random(75, 5, generator=generator), torch.tensor([0, 0, 0, 1, 1])
    chosen = torch.tensor([1, -1, 0, 0, 1, 0])
    out = torch.zeros(6, 75)
    LowRankKernel(kernels.pool).add(x, low_rank_weights(down, up, owners), chosen, out)
    want = ((x @ down.T) * (chosen[:, None] == owners)) @ up.T
    _compare("adapters", out, want, 1e-5)


def _check_attention(kernels: Kernels, dtype: torch.dtype, generator: torch.Generator) -> None:
    count, heads, width = 75, 2, 24
    q, k, v = (_random(count, heads, width, generator=generator) for _ in range(3))
    angles = torch.arange(count)[:, None] / 100 ** (torch.arange(width // 2) * 2 / width)
    cos, sin = angles.cos(), angles.sin()

    def turned(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        c, s = cos[:, None], sin[:, None]
        return torch.cat([a * c - b * s, b * c + a * s], dim=-1)

    query, key, value = (x.transpose(0, 1) for x in (turned(q), turned(k).to(dtype), v.to(dtype)))
    want = torch.nn.functional.scaled_dot_product_attention(
        query, key.float(), value.float(), is_causal=True
    )
    keys, values = kernels.new_cache(6, heads, width, dtype=dtype)
    table = torch.tensor([[5, 3, 1, 0, 2]], dtype=torch.int32)
    place = torch.arange(count)
    slots = table[0, place // BLOCK_SIZE].long() * BLOCK_SIZE + place % BLOCK_SIZE
    table_of_angles = torch.cat([cos, sin], dim=1).contiguous()
    kernels.rope_store(q, k, v, place.int(), table_of_angles, keys, values, slots)
    out = torch.empty(count, heads * width)
    contexts = torch.tensor([count], dtype=torch.int32)
    starts = torch.tensor([0, count], dtype=torch.int32)
    kernels.attend(q, keys, values, starts, contexts, table, out, scale=width**-0.5)
    flat = want.transpose(0, 1).reshape(count, -1)
    _compare(f"attention over {dtype}", out, flat, 1e-5 if dtype is torch.float32 else 1e-2)
