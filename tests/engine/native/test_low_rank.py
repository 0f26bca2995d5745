"""What adapters add to products: each row its own adapter's part, whatever is beside it."""

from __future__ import annotations

import pytest
import torch

from fastchat.engine.native.kernels import Kernels
from fastchat.engine.native.low_rank import LowRankKernel, low_rank_weights

OWNERS = torch.tensor([0, 0, 0, 2, 2, 2, 2, 2, 3])  # adapter 1 adds nothing here
INPUTS, OUTPUTS = 77, 1203


@pytest.fixture
def parts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(len(OWNERS), INPUTS, generator=generator),
        torch.randn(OUTPUTS, len(OWNERS), generator=generator),
    )


@pytest.mark.parametrize("count", [1, 16, 37])
def test_a_row_gets_its_own_adapters_part(
    kernels: Kernels, parts: tuple[torch.Tensor, torch.Tensor], count: int
) -> None:
    down, up = parts
    x, before = torch.randn(count, INPUTS), torch.randn(count, OUTPUTS)
    chosen = torch.randint(-1, 5, (count,))
    own = (chosen[:, None] == OWNERS).double()
    want = before.double() + ((x.double() @ down.double().T) * own) @ up.double().T
    out = before.clone()
    LowRankKernel(kernels.pool).add(x, low_rank_weights(down, up, OWNERS), chosen, out)
    torch.testing.assert_close(out.double(), want, atol=1e-4, rtol=1e-5)
    assert torch.equal(out[chosen == -1], before[chosen == -1])


def test_the_same_bits_alone_and_beside_others(
    kernels: Kernels, parts: tuple[torch.Tensor, torch.Tensor]
) -> None:
    down, up = parts
    kernel, everything = LowRankKernel(kernels.pool), low_rank_weights(down, up, OWNERS)
    x, before = torch.randn(40, INPUTS), torch.randn(40, OUTPUTS)
    chosen = torch.arange(40) % 4
    together = before.clone()
    kernel.add(x, everything, chosen, together)
    mine = OWNERS == 2
    only = low_rank_weights(down[mine], up[:, mine], torch.zeros(5, dtype=torch.int64))
    for row in torch.nonzero(chosen == 2).flatten().tolist():
        alone = before[row : row + 1].clone()
        kernel.add(x[row : row + 1], only, torch.zeros(1, dtype=torch.int64), alone)
        assert torch.equal(alone[0], together[row])
