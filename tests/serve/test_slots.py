"""Slots are given out in order, never more than there are, and never lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.serve.worker.slots import Slots


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_bookkeeping_holds_whatever_comes_and_goes(limit, steps):
    slots = Slots(limit)
    claims = []
    for arrives, which in steps:
        if arrives or not claims:
            claims.append(slots.claim().__enter__())
        else:
            claims.pop(which % len(claims)).__exit__(None, None, None)
        assert slots.in_use == min(limit, len(claims))
        assert slots.in_use + slots.waiting == len(claims)
        granted = [claim.granted.is_set() for claim in claims]
        assert granted == sorted(granted, reverse=True)


async def test_waiting_ends_with_the_place_or_with_patience():
    slots = Slots(1)
    with slots.claim() as first, slots.claim() as second:
        assert await first.wait(0)
        assert not await second.wait(0.001)
        assert slots.waiting == 1
    assert (slots.in_use, slots.waiting) == (0, 0)


async def test_an_exception_gives_the_place_up():
    slots = Slots(1)
    with pytest.raises(ValueError, match="x"), slots.claim():
        raise ValueError("x")
    with slots.claim() as next_one:
        assert await next_one.wait(0)
