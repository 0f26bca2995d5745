"""The table of workers and the choice among them, with time and chance as arguments."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from fastchat.protocol.worker import WorkerStatus
from fastchat.serve.cluster.dispatch import PrefixDispatch, lottery, shortest_queue
from fastchat.serve.cluster.registry import Registry, WorkerEntry


def status(*names: str, queue: int = 0, speed: float = 1) -> WorkerStatus:
    return WorkerStatus(model_names=list(names), speed=speed, queue_length=queue)


def entry(address: str, queue: int, speed: float = 1) -> WorkerEntry:
    return WorkerEntry(address, ["m"], speed, queue, check_heart_beat=True, last_heart_beat=0)


def test_a_silent_worker_expires_exactly_after_the_limit():
    registry = Registry(90)
    registry.register("a", status("m"), now=10)
    assert registry.expire(now=100) == []
    assert registry.expire(now=100.001) == ["a"]
    assert registry.models() == []
    assert not registry.heart_beat("a", 0, now=101)


def test_a_heart_beat_keeps_a_worker_and_tells_its_queue():
    registry = Registry(90)
    registry.register("a", status("m"), now=0)
    assert registry.heart_beat("a", 7, now=80)
    assert registry.expire(now=170) == []
    assert registry.serving("m")[0].queue_length == 7


def test_a_worker_without_heart_beats_stays_until_it_cannot_be_reached():
    registry = Registry(90)
    registry.register("a", status("m"), now=0, check_heart_beat=False)
    assert registry.expire(now=10_000) == []
    registry.missed("a")
    assert len(registry) == 0


def test_a_worker_that_was_missed_ranks_last_until_its_next_sign_of_life():
    registry = Registry(90)
    registry.register("a", status("m"), now=0)
    registry.register("b", status("m"), now=0)
    registry.missed("a")
    assert [found.address for found in registry.serving("m")] == ["b"]
    registry.missed("b")
    assert len(registry.serving("m")) == 2
    registry.heart_beat("a", 0, now=1)
    assert [found.address for found in registry.serving("m")] == ["a"]


def test_models_are_sorted_and_told_once():
    registry = Registry(90)
    registry.register("a", status("z", "m"), now=0)
    registry.register("b", status("m", "c"), now=0, multimodal=True)
    assert registry.models() == ["c", "m", "z"]
    assert registry.models(multimodal=True) == ["c", "m"]
    assert registry.models(multimodal=False) == ["m", "z"]


def test_all_workers_together_look_like_one():
    registry = Registry(90)
    registry.register("a", status("m", queue=2, speed=3), now=0)
    registry.register("b", status("k", queue=1), now=0)
    assert registry.total() == status("k", "m", queue=3, speed=4)
    assert Registry(90).total().model_names == []


def test_an_update_keeps_how_a_worker_was_registered_and_adds_none():
    registry = Registry(90)
    registry.register("a", status("m"), now=0, check_heart_beat=False)
    registry.update("a", status("m", "k"), now=5)
    registry.update("b", status("m"), now=5)
    assert registry.models() == ["k", "m"]
    assert registry.expire(now=1000) == []
    assert registry.addresses() == ["a"]


def test_the_shortest_queue_counts_speed():
    assert shortest_queue([entry("a", 4, speed=4), entry("b", 2)], [], Random(0)).address == "a"


@pytest.mark.parametrize("seed", range(3))
def test_ties_of_the_shortest_queue_are_broken_by_chance(seed):
    entries = [entry("a", 1), entry("b", 1), entry("c", 2)]
    chance = Random(seed)
    taken = Counter(shortest_queue(entries, [], chance).address for _ in range(200))
    assert set(taken) == {"a", "b"}
    assert min(taken.values()) > 50


def test_the_lottery_prefers_speed():
    chance = Random(1)
    entries = [entry("slow", 0, speed=1), entry("fast", 0, speed=9)]
    taken = Counter(lottery(entries, [], chance).address for _ in range(500))
    assert taken["fast"] > 3 * taken["slow"] > 0


def test_a_prompt_worker_that_is_late_ranks_last_until_it_is_heard_again():
    registry = Registry(90, late_s=5)
    registry.register("a", status("m"), now=0)
    registry.register("b", status("m"), now=0)
    registry.heart_beat("a", 0, now=1)
    registry.heart_beat("b", 0, now=80)
    registry.expire(now=81)
    assert [e.address for e in registry.serving("m")] == ["b"]
    registry.heart_beat("a", 0, now=82)
    assert [e.address for e in registry.serving("m")] == ["a", "b"]


def test_those_that_were_tried_are_no_choice_unless_nothing_is_left():
    registry = Registry(90)
    registry.register("a", status("m"), now=0)
    registry.register("b", status("m"), now=0)
    assert [e.address for e in registry.serving("m", tried=["a"])] == ["b"]
    assert [e.address for e in registry.serving("m", tried=["a", "b"])] == ["a", "b"]
    assert registry.remove("a")
    assert not registry.remove("a")


def chat(number, turns):
    return [f"{number}-{turn}" for turn in range(turns)]


def test_conversations_go_back_to_where_they_were():
    dispatch, chance = PrefixDispatch(), Random(3)
    entries = [entry("a", 0), entry("b", 0)]
    homes = {}
    for turns in range(1, 8):
        for number in range(50):
            chosen = dispatch(entries, ["system", *chat(number, turns)], chance)
            assert homes.setdefault(number, chosen.address) == chosen.address
    assert len(set(homes.values())) <= 2


def test_a_busy_worker_is_passed_over_whatever_it_has_seen():
    dispatch, chance = PrefixDispatch(slack=4), Random(0)
    entries = [entry("a", 0), entry("b", 0)]
    home = dispatch(entries, chat(1, 2), chance)
    other = next(e for e in entries if e is not home)
    home.queue_length = 4
    assert dispatch(entries, chat(1, 3), chance) is home
    home.queue_length = 5
    assert dispatch(entries, chat(1, 4), chance) is other
    home.queue_length = 0
    assert dispatch(entries, chat(1, 5), chance) is other


def test_only_beginnings_of_late_are_remembered():
    dispatch, chance = PrefixDispatch(remembered=10), Random(0)
    for number in range(100):
        dispatch([entry("a", 0), entry("b", 0)], chat(number, 3), chance)
    assert len(dispatch._seen) == 10
