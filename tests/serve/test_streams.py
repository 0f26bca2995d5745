"""Merging growing answers, and telling what is new of each."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.base import GenerationEvent
from fastchat.serve.openai.streams import Grower, merge
from fastchat.serve.worker.chunks import Answer, chunks_of


async def _items(*values, closed=None, gate=None):
    try:
        for value in values:
            if gate is not None:
                await gate.wait()
            else:
                await asyncio.sleep(0)
            if isinstance(value, Exception):
                raise value
            yield value
    finally:
        if closed is not None:
            closed.append(values)


async def test_streams_are_merged_as_they_come():
    gate = asyncio.Event()
    found = []
    async with aclosing(merge([_items("a", gate=gate), _items(1, 2)])) as merged:
        async for item in merged:
            found.append(item)
            if len(found) == 2:
                gate.set()
    assert found == [(1, 1), (1, 2), (0, "a")]


@pytest.mark.parametrize("others", [0, 2])
async def test_an_error_of_one_ends_and_closes_all(others):
    closed = []
    streams = [_items("a", KeyError("bad"), closed=closed)]
    streams += [_items(*range(100), closed=closed) for _ in range(others)]
    with pytest.raises(KeyError, match="bad"):
        async for _ in merge(streams):
            pass
    assert len(closed) == 1 + others


@pytest.mark.parametrize("count", [1, 3])
async def test_closing_the_merge_closes_every_stream(count):
    closed = []
    merged = merge([_items(*range(100), closed=closed) for _ in range(count)])
    await anext(merged)
    await merged.aclose()
    assert len(closed) == count


def _chunk(text, finish=None):
    return {"text": text, "error_code": 0, "finish_reason": finish}


@given(st.text(max_size=20), st.lists(st.integers(0, 20), max_size=6))
def test_what_is_new_adds_up_to_the_whole(text, cuts):
    chunks = [_chunk(text[:cut]) for cut in sorted(min(cut, len(text)) for cut in cuts)]
    chunks += [_chunk(text), _chunk(text, "stop")]
    grower = Grower(0)
    assert "".join(grower.add(chunk).text for chunk in chunks) == text


def test_half_a_character_is_held_back_until_it_is_whole():
    grower = Grower(0)
    told = [grower.add(_chunk(text)).text for text in ("a", "a\ufffd", "a你", "a你\ufffd")]
    assert told == ["a", "", "你", ""]
    assert grower.add(_chunk("a你\ufffd", "length")).text == "\ufffd"


async def _tokens(count):
    for number in range(1, count + 1):
        reason = "length" if number == count else None
        yield GenerationEvent("x", (0,), 1, number, finish_reason=reason)


@pytest.mark.parametrize("deltas", [False, True])
async def test_chunks_keep_their_distance_and_lose_nothing(deltas):
    ticks = itertools.count()
    answer = Answer("", logprobs=False, end_ids=(), deltas=deltas)
    told = chunks_of(_tokens(20), answer, interval=1, gap_s=lambda: 5, now=lambda: next(ticks))
    chunks = [chunk async for chunk in told]
    text = "".join(chunk["text"] for chunk in chunks) if deltas else chunks[-1]["text"]
    assert text == "x" * 20
    assert chunks[0]["text"] == "x"
    assert 3 < len(chunks) < 10
