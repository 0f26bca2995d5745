"""Blocks are neither lost nor held twice, and what is found is what was computed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.batching.blocks import Block, BlockPool

SIZE = 4


def fill(pool: BlockPool, namespace: str, tokens: list[int]) -> list[Block]:
    """Does what a sequence does that computes all of its tokens."""
    blocks = pool.find(namespace, tokens)
    pool.hold(blocks)
    for start in range(len(blocks) * SIZE, len(tokens), SIZE):
        block, part = pool.take(), tuple(tokens[start : start + SIZE])
        parent = blocks[-1] if blocks else pool.root(namespace)
        blocks.append(pool.publish(block, parent, part) if len(part) == SIZE else block)
    return blocks


@given(st.randoms(use_true_random=False))
def test_blocks_are_never_lost(rng: random.Random) -> None:
    pool = BlockPool(24, SIZE)
    held: list[tuple[list[int], list[Block]]] = []
    for _ in range(80):
        if held and rng.random() < 0.5:
            pool.give_up(held.pop(rng.randrange(len(held)))[1])
        else:
            tokens = [rng.randrange(2) for _ in range(rng.randrange(1, 30))]
            if -(-len(tokens) // SIZE) <= pool.available:
                held.append((tokens, fill(pool, rng.choice("ab"), tokens)))
        in_use = {block.number for _, blocks in held for block in blocks}
        assert pool.held == len(in_use)
        for tokens, blocks in held:
            for place, block in enumerate(blocks[: len(tokens) // SIZE]):
                assert block.tokens == tuple(tokens[place * SIZE : (place + 1) * SIZE])
    for _, blocks in held:
        pool.give_up(blocks)
    assert pool.available == 24


def test_a_prefix_is_found_and_shared() -> None:
    pool = BlockPool(8, SIZE)
    first = fill(pool, "", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert [block.number for block in pool.find("", [1, 2, 3, 4, 5, 6, 7, 8])] == [
        block.number for block in first[:2]
    ]
    assert pool.find("", [1, 2, 3, 4, 5, 6, 7, 0]) == first[:1]
    assert pool.find("other", [1, 2, 3, 4]) == []
    second = fill(pool, "", [1, 2, 3, 4, 5])
    assert second[0] is first[0]
    pool.give_up(first)
    assert pool.held == 2
    pool.give_up(second)
    assert pool.held == 0
    assert pool.find("", [1, 2, 3, 4]) == first[:1]


def test_the_longest_unused_is_evicted_and_leaves_before_their_parents() -> None:
    pool = BlockPool(4, SIZE)
    for start in (0, 100):
        pool.give_up(fill(pool, "", list(range(start, start + 8))))
    pool.give_up(fill(pool, "", list(range(8))))  # used again
    taken = [pool.take(), pool.take()]
    assert pool.find("", list(range(100, 108))) == []
    assert len(pool.find("", list(range(8)))) == 2
    taken.append(pool.take())
    assert len(pool.find("", list(range(8)))) == 1
    pool.take()
    with pytest.raises(IndexError, match="available"):
        pool.take()


def test_the_same_tokens_computed_twice_are_kept_once() -> None:
    pool = BlockPool(4, SIZE)
    one, other = pool.take(), pool.take()
    assert pool.publish(one, pool.root(""), (1, 2, 3, 4)) is one
    assert pool.publish(other, pool.root(""), (1, 2, 3, 4)) is one
    assert pool.held == 1


def test_a_forgotten_namespace_is_not_found_but_stays_usable() -> None:
    pool = BlockPool(6, SIZE)
    idle = fill(pool, "a", [1, 2, 3, 4])
    pool.give_up(idle)
    held = fill(pool, "a", [1, 2, 3, 4, 5, 6, 7, 8])
    pool.forget("a")
    assert pool.find("a", [1, 2, 3, 4]) == []
    assert pool.held == 2
    pool.give_up(held)
    assert pool.available == 6
