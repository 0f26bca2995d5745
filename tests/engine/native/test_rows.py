from __future__ import annotations

import pytest
import torch
from torch.nn import functional

WIDTHS = [1, 8, 20, 64, 2048]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 5, 300])
def test_norms(kernels, width, count):
    x, residual = torch.randn(count, width), torch.randn(count, width)
    weight = torch.randn(width)
    out = torch.empty(count, width)
    for given, total in ((None, x), (residual, x + residual)):
        kernels.rms_norm(x, weight, 1e-5, out, residual=given)
        want = functional.rms_norm(total.double(), (width,), weight.double(), 1e-5)
        torch.testing.assert_close(out, want.float(), rtol=2e-6, atol=1e-6)
    kernels.rms_norm(x, weight, 1e-5, x, residual=residual)
    assert torch.equal(x, out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 5, 300])
def test_gates(kernels, width, count):
    both = torch.randn(count, 2 * width) * 8
    both[0, 0], both[-1, -1] = -200.0, 1e4
    out = torch.empty(count, width)
    kernels.silu_mul(both, out)
    gate, up = both.double().chunk(2, dim=1)
    torch.testing.assert_close(out, (functional.silu(gate) * up).float(), rtol=2e-6, atol=1e-7)


def test_gates_keep_what_is_not_a_number(kernels):
    out = torch.empty(1, 9)
    kernels.silu_mul(torch.full((1, 18), torch.nan), out)
    assert out.isnan().all()


@pytest.mark.parametrize("width", [4, 36])
def test_filter_pairs(kernels, width):
    states, stored = torch.randn(6, width), torch.randn(2, width)
    previous = torch.tensor([-1, 0, -3, 2, -2, 1], dtype=torch.int32)
    out = torch.empty(6, 2 * width)
    kernels.filter_pairs(states, previous, stored, out)
    before = torch.stack([0 * states[0], states[0], stored[1], states[2], stored[0], states[1]])
    assert torch.equal(out, torch.cat([before, states], dim=1))
    for wrong in (6, -4):
        previous[3] = wrong
        with pytest.raises(ValueError, match=r"outside -3\.\.5"):
            kernels.filter_pairs(states, previous, stored, out)
    kernels.filter_pairs(states[:1], previous[:1], stored[:0], out[:1])
    assert not out[0, :width].any()


def test_what_does_not_fit_is_refused(kernels):
    x = torch.zeros(3, 8)
    with pytest.raises(ValueError, match=r"weight is .*\(4,\)"):
        kernels.rms_norm(x, torch.zeros(4), 1e-6, x)
    with pytest.raises(ValueError, match="gate_up"):
        kernels.silu_mul(x, torch.zeros(3, 5))
