from __future__ import annotations

import pytest
import torch

from fastchat.engine.native.packed import KINDS

SHAPES = [(1, 1), (32, 64), (300, 48), (65, 33), (128, 288), (512, 300)]  # (N, K)
COUNTS = [1, 2, 3, 4, 5, 6, 7, 13, 16, 64, 130, 200]
# Root mean square of the rounding error over that of the weights, for normal weights.
ROUNDING = {"float32": 0.0, "bfloat16": 0.0, "int8": 0.01, "int4": 0.085}


@pytest.fixture
def random():
    return torch.Generator().manual_seed(11)


def product(kernels, x, packed, **options):
    rows = options.get("rows")
    out = torch.full((len(x) if rows is None else len(rows), packed.outputs), 3.0)
    kernels.matmul(x, packed, out, **options)
    return out


def unpacked(kernels, packed):
    """The weights as the kernels see them: the product with the unit matrix."""
    return product(kernels, torch.eye(packed.inputs), packed).T.contiguous()


def inexactness(kind, x):
    """What inputs may be off by: beside whole weights they get 15 bits, by the largest of 32."""
    if kind in ("float32", "bfloat16"):
        return torch.zeros_like(x)
    chunks = [c.abs().amax(1, keepdim=True).expand_as(c) for c in x.double().split(32, dim=1)]
    return torch.cat(chunks, dim=1) * 2**-14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_the_packed_weights(kernels, random, kind, shape):
    weight = torch.randn(shape, generator=random).bfloat16()
    packed = kernels.pack(weight, kind)
    held = unpacked(kernels, packed)
    error = (held - weight).square().mean().sqrt() / weight.float().square().mean().sqrt()
    assert error <= ROUNDING[kind]
    for count in COUNTS:
        x = torch.randn(count, shape[1], generator=random)
        want = x.double() @ held.double().T
        sizes = x.double().abs() * 4e-7 * shape[1] ** 0.5 + inexactness(kind, x)
        bound = sizes @ held.double().abs().T + 1e-30
        assert ((product(kernels, x, packed) - want).abs() <= bound).all(), count


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_every_batch_and_on_any_number_of_threads(
    kernels, alone, random, kind
):
    packed = kernels.pack(torch.randn(320, 544, generator=random), kind)
    x = torch.randn(410, 544, generator=random)
    whole = product(kernels, x, packed)
    assert torch.equal(product(alone, x, packed), whole)
    for count in COUNTS:
        for first in (0, 17):
            part = product(kernels, x[first : first + count].contiguous(), packed)
            assert torch.equal(part, whole[first : first + count]), (count, first)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_sum_and_chosen_rows(kernels, random, kind):
    packed = kernels.pack(torch.randn(70, 64, generator=random), kind)
    x = torch.randn(9, 64, generator=random)
    bias = torch.randn(70, generator=random)
    plain = product(kernels, x, packed)
    assert torch.equal(product(kernels, x, packed, bias=bias), plain + bias)
    assert torch.equal(product(kernels, x, packed, add=True), plain + 3.0)
    rows = torch.tensor([8, 0, 0, 3])
    assert torch.equal(product(kernels, x, packed, rows=rows), plain[rows])
    assert product(kernels, x, packed, rows=rows[:0]).shape == (0, 70)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_source_types_strides_and_row_order(kernels, random, kind, dtype):
    weight = torch.randn(96, 80, generator=random).to(dtype)
    order = torch.randperm(96, generator=random)
    packed = kernels.pack(weight.bfloat16(), kind)
    exact = kernels.pack(weight.bfloat16().to(dtype), kind)
    assert torch.equal(exact.data, packed.data)
    wide = torch.cat([weight, weight], dim=1)[:, :80]
    assert torch.equal(kernels.pack(wide, kind).data, kernels.pack(weight, kind).data)
    ordered = kernels.pack(weight, kind, row_order=order)
    assert torch.equal(ordered.data, kernels.pack(weight[order], kind).data)
    parts = kernels.pack(weight.clone().split(32), kind, row_order=order)
    assert torch.equal(parts.data, ordered.data)


def test_half_precision_weights_arrive_exactly(kernels):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    every = every.view(torch.float16)
    every = every[every.isfinite()].reshape(-1, 16)
    assert torch.equal(unpacked(kernels, kernels.pack(every, "float32")), every.float())


def test_bfloat16_rounds_to_nearest(kernels, random):
    weight = torch.randn(64, 64, generator=random)
    held = unpacked(kernels, kernels.pack(weight, "bfloat16"))
    assert torch.equal(held, weight.bfloat16().float())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_int4_is_no_worse_than_the_nearest_of_evenly_spaced_levels(kernels, random, scale):
    weight = torch.randn(128, 256, generator=random) * scale
    held = unpacked(kernels, kernels.pack(weight, "int4"))
    groups = weight.reshape(-1, 32)
    step = groups.abs().amax(1, keepdim=True) / 7
    plain = (groups / step).round() * step
    assert (held - weight).square().sum() < 0.85 * (plain - groups).square().sum()


def test_int8_is_off_by_at_most_half_a_step(kernels, random):
    weight = torch.randn(128, 256, generator=random)
    held = unpacked(kernels, kernels.pack(weight, "int8"))
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((held - weight).abs() <= step * 0.5001).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 9])
def test_inputs_of_any_size_and_those_that_are_no_numbers(kernels, random, kind, count):
    packed = kernels.pack(torch.randn(64, 96, generator=random), kind)
    x = torch.randn(count, 96, generator=random)
    plain = product(kernels, x, packed)
    for scale in (2.0**-60, 2.0**60):  # a power of two changes no digit
        assert torch.equal(product(kernels, x * scale, packed), plain * scale)
    assert not product(kernels, 0 * x, packed).any()
    for wrong in (torch.nan, torch.inf, -torch.inf):
        x[-1, 70] = wrong
        got = product(kernels, x, packed)
        assert not got[-1].isfinite().any()
        assert torch.equal(got[:-1], plain[:-1])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rows_of_zeros_stay_zeros(kernels, kind):
    weight = torch.zeros(64, 64)
    weight[3, 40] = -2.0
    held = unpacked(kernels, kernels.pack(weight, kind))
    assert torch.allclose(held, weight, atol=2e-3)
    assert not held[weight == 0].any()


def test_packed_sizes(kernels):
    weight = torch.zeros(2048, 1024)
    bits = {kind: 8 * kernels.pack(weight, kind).nbytes / weight.numel() for kind in KINDS}
    assert bits == pytest.approx({"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4.5}, rel=0.01)


def test_what_does_not_fit_is_refused(kernels):
    packed = kernels.pack(torch.zeros(8, 16), "float32")
    x, out = torch.zeros(2, 16), torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"x is .*float64"):
        kernels.matmul(x.double(), packed, out)
    with pytest.raises(ValueError, match=r"x is .*\(2, 8\).*any, 16"):
        kernels.matmul(out, packed, out)
    with pytest.raises(ValueError, match="out is a strided"):
        kernels.matmul(x, packed, torch.zeros(8, 2).T)
    with pytest.raises(ValueError, match=r"rows outside 0\.\.1"):
        kernels.matmul(x, packed, out, rows=torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"row_order names rows outside 0\.\.7"):
        kernels.pack(torch.zeros(8, 16), "int4", row_order=torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"int2.*bfloat16"):
        kernels.pack(torch.zeros(8, 16), "int2")
    with pytest.raises(ValueError, match="int64"):
        kernels.pack(torch.zeros(8, 16, dtype=torch.int64), "int4")
