"""LoRA adapters beside a product: each row of a step with its own adapter.

Activations and adapters are float32. A row is computed with its own adapter only, in one order:
it has the same bits whatever else is loaded or asked for. T counts rows, R the ranks of all
adapters together.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from fastchat.engine.native.library import ThreadPool, bind, checked


@dataclass(frozen=True, slots=True)
class LowRankWeights:
    """What adapters add to one matrix (N, K).

    Attributes:
        down: (R, K).
        up: (R, N), each adapter's scale in it.
        begins: (A + 1,) int64; adapter a has the rows `begins[a]` to `begins[a + 1]`.
        widest: ranks of the adapter with the most.
    """

    down: torch.Tensor
    up: torch.Tensor
    begins: torch.Tensor
    widest: int


def low_rank_weights(down: torch.Tensor, up: torch.Tensor, owners: torch.Tensor) -> LowRankWeights:
    """Lays adapters out for the kernel.

    Args:
        down: (R, K).
        up: (N, R).
        owners: (R,) int64 number of the adapter that each rank belongs to, rising.
    """
    sizes = torch.bincount(owners)
    begins = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    return LowRankWeights(
        down.float().contiguous(), up.float().T.contiguous(), begins, int(sizes.max())
    )


class LowRankKernel:
    """Adds what adapters add.

    Args:
        pool: threads to share.

    Raises:
        NativeUnavailableError: it cannot be compiled or loaded here.
    """

    def __init__(self, pool: ThreadPool) -> None:
        types = {"p": ctypes.c_void_p, "l": ctypes.c_int64}
        self._pool = pool
        self._call = bind(
            pool.cdll, "fastchat_low_rank", [types[letter] for letter in "ppllpplplplpp"]
        )

    def add(
        self,
        x: torch.Tensor,
        weights: LowRankWeights,
        chosen: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """`out[t] += up.T @ (down @ x[t])` with the rows of adapter `chosen[t]`.

        Args:
            x: (T, K).
            weights: of the adapters.
            chosen: (T,) int64, -1 for no adapter; an adapter that adds nothing to this matrix
                may lie beyond those of `weights`.
            out: (T, N), added to; must not overlap `x`.
        """
        count = len(x)
        ranks, inputs = weights.down.shape
        outputs = weights.up.shape[1]
        known = len(weights.begins) - 1
        low = x.new_empty(count, weights.widest)
        self._call(
            self._pool.handle,
            checked("x", x, (None, inputs), torch.float32),
            count,
            inputs,
            checked("down", weights.down, (ranks, inputs), torch.float32),
            checked("up", weights.up, (ranks, outputs), torch.float32),
            outputs,
            checked("begins", weights.begins, (known + 1,), torch.int64),
            known,
            checked("chosen", chosen, (count,), torch.int64),
            weights.widest,
            low.data_ptr(),
            checked("out", out, (count, outputs), torch.float32),
        )
