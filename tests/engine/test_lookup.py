"""Guessing what comes next from what came before."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.lookup import DraftControl, Drafter, PromptLookup

tokens = st.lists(st.integers(0, 3), max_size=40)


def naive(ids: list[int], limit: int) -> tuple[int, ...]:
    """The latest place before the end where the longest run of 4 to 2 tokens stood."""
    for size in (4, 3, 2):
        for start in range(len(ids) - size - 1, -1, -1):
            if len(ids) > size and ids[start : start + size] == ids[-size:]:
                period = len(ids) - start - size
                return tuple((ids[start + size :] * (limit // period + 1))[:limit])
    return ()


@given(prompt=tokens, pieces=st.lists(tokens, max_size=4), limit=st.integers(1, 12))
def test_guesses_are_what_followed_the_longest_latest_run(
    prompt: list[int], pieces: list[list[int]], limit: int
) -> None:
    lookup, ids = PromptLookup(prompt), prompt
    for piece in pieces:
        lookup.extend(piece)
        ids = ids + piece
        assert lookup.draft(limit) == naive(ids, limit)


def test_a_copy_is_guessed_whole() -> None:
    drafter = Drafter([*range(100, 160), 7])
    made, steps = [100, 101], 0
    drafter.record(0, 0, made)
    while made[-1] < 140:
        drafts = drafter.draft(8)
        right = [*range(made[-1] + 1, made[-1] + 2 + len(drafts))]
        assert list(drafts) == right[:-1]
        drafter.record(len(drafts), len(drafts), right)
        made += right
        steps += 1
    assert steps <= 6


def test_guessing_pauses_longer_and_longer_while_nothing_comes_true() -> None:
    control, tried = DraftControl(), []
    for place in range(2000):
        if limit := control.limit():
            tried.append(place)
        control.record(limit, 0, 1)
    assert len(tried) <= 16
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert pauses == sorted(pauses)


def test_guessing_resumes_when_it_pays_again() -> None:
    control = DraftControl(longest_pause=32)
    for _ in range(200):
        control.record(control.limit(), 0, 1)
    right = 0
    for _ in range(100):
        limit = control.limit()
        right += limit
        control.record(limit, limit, limit + 1)
    assert control.limit() == 8
    assert right > 400
