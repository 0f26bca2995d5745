"""Who runs, and who waits: without a network, as the scheduler decides over numbers only."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.scheduler import Limits, Scheduler, Work
from fastchat.engine.batching.sequence import Sequence
from fastchat.errors import OverloadedError

ORDERS = count()


def sequence(tokens: list[int], *, budget: int = 8, priority: int = 0) -> Sequence:
    return Sequence(
        GenerationRequest(tokens, SamplingParams(), priority=priority),
        order=next(ORDERS),
        tokens=list(tokens),
        budget=budget,
        namespace="",
    )


def compute(scheduler: Scheduler, works: list[Work]) -> None:
    """What a step does, with token 7 for every answer."""
    for work in works:
        if work.samples:
            work.sequence.tokens.append(7)
        scheduler.computed(work, 0)
        if work.sequence.generated >= work.sequence.budget:
            scheduler.remove(work.sequence)


def scheduler_of(blocks: int = 32, **limits: int) -> Scheduler:
    return Scheduler(BlockPool(blocks, 4), Limits(**limits))


def test_prompts_are_cut_to_what_generating_leaves() -> None:
    scheduler = scheduler_of(step_tokens=8)
    short, long = sequence([1, 2, 3]), sequence(list(range(100, 120)))
    for one in (short, long):
        scheduler.add(one)
    assert [(w.sequence, w.count, w.samples) for w in scheduler.plan()] == [
        (short, 3, True),
        (long, 5, False),
    ]
    compute(scheduler, scheduler.plan())
    assert [(w.sequence, w.count) for w in scheduler.plan()] == [(short, 1), (long, 7)]


def test_lower_priority_numbers_go_first_and_the_line_is_bounded() -> None:
    scheduler = scheduler_of(running=1, waiting=3)
    usual, late, urgent = sequence([1]), sequence([2]), sequence([3], priority=-1)
    for one in (usual, late, urgent):
        scheduler.add(one)
    with pytest.raises(OverloadedError, match="3 requests wait"):
        scheduler.add(sequence([4]))
    assert [work.sequence for work in scheduler.plan()] == [urgent]


def test_the_last_in_rank_is_set_back_and_goes_on_with_its_tokens() -> None:
    scheduler = scheduler_of(blocks=4)
    first, second = sequence([1] * 7, budget=20), sequence([2] * 7, budget=20)
    for one in (first, second):
        scheduler.add(one)
    for _ in range(2):
        compute(scheduler, scheduler.plan())
    assert scheduler.running == [first, second]
    compute(scheduler, scheduler.plan())
    assert scheduler.running == [first]
    assert second.tokens == [2] * 7 + [7, 7]
    assert scheduler.preemptions == 1
    scheduler.remove(first)
    work = scheduler.plan()[0]
    # Its first block was computed before and found again.
    assert (work.sequence, work.count, work.samples) == (second, 5, True)


def test_an_equal_beginning_is_computed_once() -> None:
    scheduler = scheduler_of()
    beginning = list(range(50, 62))
    one, other = sequence([*beginning, 1]), sequence([*beginning, 2])
    for new in (one, other):
        scheduler.add(new)
    works = scheduler.plan()
    assert [work.sequence for work in works] == [one]
    compute(scheduler, works)
    assert [(w.sequence, w.count) for w in scheduler.plan()] == [(one, 1), (other, 1)]
    assert scheduler.prefix_hit_tokens == 12


def test_deadlines_are_for_those_that_were_never_begun() -> None:
    scheduler = scheduler_of(running=1)
    one, other = sequence([1]), sequence([2])
    one.deadline = other.deadline = 5.0
    for new in (one, other):
        scheduler.add(new)
    compute(scheduler, scheduler.plan())
    assert scheduler.overdue(4.9) == []
    assert scheduler.overdue(5.0) == [other]


def test_suspects_run_alone_until_their_next_token() -> None:
    scheduler = scheduler_of()
    both = [sequence([1, 2]), sequence([3, 4])]
    for one in both:
        scheduler.add(one)
    scheduler.suspect(scheduler.plan())
    for one in both:
        works = scheduler.plan()
        assert [work.sequence for work in works] == [one]
        compute(scheduler, works)
        scheduler.clear_of_suspicion(one)
    assert len(scheduler.plan()) == 2


@given(st.randoms(use_true_random=False))
def test_every_request_ends_and_no_block_is_lost(rng: random.Random) -> None:
    scheduler = scheduler_of(blocks=14, running=4, step_tokens=rng.choice([4, 9, 64]))
    sequences = [
        sequence(
            [rng.randrange(2) for _ in range(rng.randrange(1, 20))], budget=rng.randrange(1, 30)
        )
        for _ in range(12)
    ]
    for one in sequences:
        scheduler.add(one)
    removed = rng.sample(sequences, 3)
    for step in range(3000):
        works = scheduler.plan()
        if not works:
            break
        assert sum(work.count for work in works) <= max(scheduler.limits.step_tokens, 4)
        assert len({work.sequence.order for work in works}) == len(works)
        for work in works:
            needed = -(-(work.sequence.computed + work.count) // 4)
            assert len(work.sequence.blocks) >= needed
        compute(scheduler, works)
        if step == 5:
            for one in removed:
                scheduler.remove(one)
    assert all(one.generated == one.budget for one in sequences if one not in removed)
    assert scheduler.pool.available == 14
