"""Attention over a paged cache against plain attention; the same bits however it is cut."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

BLOCK = 16
DTYPES = [torch.float32, torch.bfloat16]


class Paged:
    """Sequences in a cache whose blocks are strewn about, filled through `rope_store`."""

    def __init__(self, kernels, lengths, heads, width, dtype, seed=3):
        random = torch.Generator().manual_seed(seed)
        self.kernels, self.heads, self.width = kernels, heads, width
        self.lengths = lengths
        total = sum(lengths)
        self.q, self.k, self.v = torch.randn(3, total, heads, width, generator=random)
        longest = max(-(-length // BLOCK) for length in lengths)
        count = len(lengths) * longest + 1
        order = torch.randperm(count, generator=random)[: len(lengths) * longest]
        self.tables = order.int().reshape(len(lengths), longest)
        self.keys, self.values = kernels.new_cache(count, heads, width, dtype=dtype)
        self.keys.fill_(torch.nan)  # what nobody has written must not matter
        self.values.fill_(torch.nan)
        self.starts = torch.tensor([0, *lengths]).cumsum(0)
        places = torch.cat([torch.arange(length) for length in lengths])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        slots = self.tables[owner, places // BLOCK].long() * BLOCK + places % BLOCK
        angles = torch.arange(max(lengths))[:, None] * 10 ** -(torch.arange(width // 2) / width)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.places = places
        self.rotated = self.q.clone(), self.k.clone()
        table = torch.cat([self.cos, self.sin], dim=1).contiguous()
        kernels.rope_store(
            self.rotated[0], self.k, self.v, places.int(), table, self.keys, self.values, slots
        )

    def attend(self, parts, *, kernels=None, tables=None):
        """Rows of some pieces (sequence, first, end) in one call."""
        picked = [
            self.rotated[0][int(self.starts[s]) + first : int(self.starts[s]) + end]
            for s, first, end in parts
        ]
        q = torch.cat(picked)
        starts = torch.tensor([0, *(end - first for _, first, end in parts)]).cumsum(0).int()
        out = torch.full((len(q), self.heads * self.width), torch.nan)
        contexts = torch.tensor([end for _, _, end in parts], dtype=torch.int32)
        rows = self.tables[[s for s, _, _ in parts]] if tables is None else tables
        (kernels or self.kernels).attend(
            q, self.keys, self.values, starts, contexts, rows, out, scale=self.width**-0.5
        )
        return out.split(starts.diff().tolist())

    def turned(self, x):
        a, b = x.double().chunk(2, dim=-1)
        c, s = self.cos[self.places][:, None], self.sin[self.places][:, None]
        return torch.cat([a * c - b * s, b * c + a * s], dim=-1)

    def wanted(self, dtype):
        q = self.turned(self.q)
        k, v = self.turned(self.k).float().to(dtype).double(), self.v.to(dtype).double()
        for first, length in zip(self.starts[:-1].tolist(), self.lengths, strict=True):
            q1, k1, v1 = (x[first : first + length].transpose(0, 1) for x in (q, k, v))
            out = functional.scaled_dot_product_attention(q1, k1, v1, is_causal=True)
            yield out.transpose(0, 1).reshape(length, -1).float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width"), [(1, 2), (3, 8), (2, 24), (4, 64), (1, 128)])
def test_attention(kernels, dtype, heads, width):
    paged = Paged(kernels, [1, 16, 17, 64, 65, 200], heads, width, dtype)
    got = paged.attend([(s, 0, length) for s, length in enumerate(paged.lengths)])
    # bfloat16 keys may round the other way where rotation differs in a last place.
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 0, "atol": 5e-3}
    for have, want in zip(got, paged.wanted(dtype), strict=True):
        torch.testing.assert_close(have, want, **close)
        assert (have - want).square().mean().sqrt() < (1e-6 if dtype is torch.float32 else 5e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_however_prompts_are_cut_and_batched(kernels, alone, dtype):
    paged = Paged(kernels, [150, 70, 131], 2, 40, dtype)
    whole = paged.attend([(0, 0, 150), (1, 0, 70), (2, 0, 131)])
    on_one_thread = paged.attend([(0, 0, 150), (1, 0, 70), (2, 0, 131)], kernels=alone)
    assert all(map(torch.equal, on_one_thread, whole))
    for cuts in ([0, 1, 150], [0, 63, 64, 66, 129, 150], [0, 49, 52, 102, 150]):
        parts = [(0, first, end) for first, end in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat(paged.attend(parts)), whole[0]), cuts
    for end in range(1, 132, 13):  # one row of each, as decoding has it
        rows = paged.attend([(2, end - 1, end), (1, 69, 70), (0, end + 18, end + 19)])
        assert torch.equal(rows[0][0], whole[2][end - 1])
        assert torch.equal(rows[1][0], whole[1][69])
        assert torch.equal(rows[2][0], whole[0][end + 18])


def test_rows_may_be_views_of_one_wider_buffer(kernels):
    paged = Paged(kernels, [33], 2, 16, torch.float32)
    buffer = torch.cat([x.reshape(33, 32) for x in (paged.q, paged.k, paged.v)], dim=1)
    q, k, v = (part.unflatten(1, (2, 16)) for part in buffer.split(32, dim=1))
    keys, values = kernels.new_cache(3, 2, 16, dtype=torch.float32)
    table = torch.cat([paged.cos, paged.sin], dim=1).contiguous()
    kernels.rope_store(q, k, v, paged.places.int(), table, keys, values, paged.places)
    assert torch.equal(q, paged.rotated[0])
    out = torch.empty(33, 32)
    starts = torch.tensor([0, 33], dtype=torch.int32)
    tables = torch.arange(3, dtype=torch.int32)[None]
    kernels.attend(q, keys, values, starts, starts[1:].clone(), tables, out, scale=0.25)
    assert torch.equal(out, paged.attend([(0, 0, 33)])[0])


def test_what_does_not_fit_is_refused(kernels):
    paged = Paged(kernels, [20, 20], 2, 16, torch.float32)
    good = [(0, 10, 20), (1, 10, 20)]
    with pytest.raises(ValueError, match=r"blocks outside 0\.\.4"):
        paged.attend(good, tables=torch.full((2, 2), 5, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"contexts=\[20, 20\]"):
        paged.attend(good, tables=paged.tables[:, :1].contiguous())
    with pytest.raises(ValueError, match="tables is"):
        paged.attend(good, tables=paged.tables.long())
    # Beyond a context a table may hold anything.
    padded = functional.pad(paged.tables, (0, 3), value=-1)
    assert torch.equal(paged.attend(good, tables=padded)[0], paged.attend(good)[0])
    with pytest.raises(ValueError, match="block_size=32"):
        kernels.new_cache(1, 1, 16, dtype=torch.float32, block_size=32)
    with pytest.raises(ValueError, match="float16"):
        kernels.new_cache(1, 1, 16, dtype=torch.float16)
    with pytest.raises(ValueError, match="head_dim=7"):
        kernels.new_cache(1, 1, 7, dtype=torch.float32)
    one = torch.zeros(1, 2, 16)
    rest = one.clone(), one.clone()
    table = torch.zeros(4, 16)
    zero = torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"slots names tokens outside 0\.\.79"):
        kernels.rope_store(one, *rest, zero, table, paged.keys, paged.values, torch.tensor([80]))
    with pytest.raises(ValueError, match=r"positions lie outside 0\.\.3"):
        kernels.rope_store(one, *rest, zero + 4, table, paged.keys, paged.values, torch.tensor([0]))
