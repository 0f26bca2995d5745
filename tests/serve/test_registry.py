"""The table of workers and the choice among them, with time and chance as arguments."""

from __future__ import annotations

from collections import Counter
from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.protocol.worker import WorkerStatus
from fastchat.serve.cluster.candidates import Candidates, WorkerEntry
from fastchat.serve.cluster.dispatch import Homes, PrefixDispatch, lottery, shortest_queue
from fastchat.serve.cluster.registry import Registry


def status(*names: str, queue: int = 0, speed: float = 1) -> WorkerStatus:
    return WorkerStatus(model_names=list(names), speed=speed, queue_length=queue)


def entry(address: str, queue: int, speed: float = 1) -> WorkerEntry:
    return WorkerEntry(address, ["m"], speed, queue, check_heart_beat=True, last_heart_beat=0)


def of(*entries: WorkerEntry) -> Candidates:
    return Candidates(entries)


def busy(entries: Candidates, **queues: int) -> None:
    for address, queue in queues.items():
        entries[address].queue_length = queue
        entries.told(entries[address])


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
    assert registry.serving("m")["a"].queue_length == 7


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
    assert list(registry.serving("m")) == ["b"]
    registry.missed("b")
    assert len(registry.serving("m")) == 2
    registry.heart_beat("a", 0, now=1)
    assert list(registry.serving("m")) == ["a"]


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
    assert shortest_queue(of(entry("a", 4, speed=4), entry("b", 2)), [], Random(0)).address == "a"


@pytest.mark.parametrize("seed", range(3))
def test_ties_of_the_shortest_queue_are_broken_by_chance(seed):
    entries = of(entry("a", 1), entry("b", 1), entry("c", 2))
    chance = Random(seed)
    taken = Counter(shortest_queue(entries, [], chance).address for _ in range(200))
    assert set(taken) == {"a", "b"}
    assert min(taken.values()) > 50


def test_the_lottery_prefers_speed():
    chance = Random(1)
    entries = of(entry("slow", 0, speed=1), entry("fast", 0, speed=9))
    taken = Counter(lottery(entries, [], chance).address for _ in range(500))
    assert taken["fast"] > 3 * taken["slow"] > 0


def test_a_prompt_worker_that_is_late_ranks_last_until_it_is_heard_again():
    registry = Registry(90, late_s=5)
    registry.register("a", status("m"), now=0)
    registry.register("b", status("m"), now=0)
    registry.heart_beat("a", 0, now=1)
    registry.heart_beat("b", 0, now=80)
    registry.expire(now=81)
    assert list(registry.serving("m")) == ["b"]
    registry.heart_beat("a", 0, now=82)
    assert list(registry.serving("m")) == ["a", "b"]


def test_those_that_were_tried_are_no_choice_unless_nothing_is_left():
    registry = Registry(90)
    registry.register("a", status("m"), now=0)
    registry.register("b", status("m"), now=0)
    assert list(registry.serving("m", tried=["a"])) == ["b"]
    assert list(registry.serving("m", tried=["a", "b"])) == ["a", "b"]
    assert registry.remove("a")
    assert not registry.remove("a")


def chat(number, turns):
    return [f"{number}-{turn}" for turn in range(turns)]


def test_conversations_go_back_to_where_they_were():
    dispatch, chance = PrefixDispatch(), Random(3)
    entries = of(entry("a", 0), entry("b", 0))
    homes = {}
    for turns in range(1, 8):
        for number in range(50):
            chosen = dispatch(entries, ["system", *chat(number, turns)], chance)
            assert homes.setdefault(number, chosen.address) == chosen.address


def test_a_busy_worker_is_passed_over_whatever_it_has_seen():
    dispatch, chance = PrefixDispatch(above=0.5, slack=3, few=0), Random(0)
    entries = of(entry("a", 0), entry("b", 0))
    home = dispatch(entries, chat(1, 2), chance)
    other = next(e for e in entries.values() if e is not home)
    busy(
        entries, **{other.address: 4, home.address: 7}
    )  # of three it has seen two: 4 + (2 + 3) * 2 / 3 is the most
    assert dispatch(entries, chat(1, 3), chance) is home
    busy(entries, **{home.address: 8})  # 4 + (2 + 3) * 3 / 4
    assert dispatch(entries, chat(1, 4), chance) is other


def test_who_has_seen_more_of_a_beginning_may_be_busier():
    dispatch, chance = PrefixDispatch(above=0, slack=4, few=0), Random(0)
    home = entry("home", 0)
    dispatch(of(home), ["system", "q1"], chance)
    home.queue_length = 4
    everyone = of(home, *(entry(f"other {n}", 0) for n in range(99)))
    new = ["system", *(f"other {n}" for n in range(3))]
    assert dispatch(everyone, new, chance) is not home
    assert dispatch(everyone, ["system", "q1"], chance) is home


def test_of_those_who_have_seen_a_beginning_the_idlest_is_asked():
    dispatch, chance = PrefixDispatch(), Random(0)
    a, b, c = entry("a", 0), entry("b", 0), entry("c", 0)
    for home in (a, b):
        dispatch(of(home), ["system"], chance)
    a.queue_length, b.queue_length = 2, 1
    assert dispatch(of(a, b, c), ["system", "q"], chance) is b


def test_faster_workers_may_have_longer_queues():
    dispatch, chance = PrefixDispatch(above=0.25, slack=1, few=0), Random(0)
    fast, slow = entry("fast", 0, speed=10), entry("slow", 0)
    dispatch(of(fast), ["q"], chance)
    both = of(fast, slow)
    busy(both, fast=10)
    assert dispatch(both, ["q"], chance) is fast
    busy(both, fast=11)
    assert dispatch(both, ["q"], chance) is slow


def test_the_mean_of_few_others_tells_little():
    for many, stays in ((1, True), (50, False)):
        dispatch, chance = PrefixDispatch(above=0, slack=1, few=4), Random(0)
        entries = of(*(entry(f"w{n}", 0) for n in range(1 + many)))
        home = dispatch(entries, ["q"], chance)
        busy(entries, **{home.address: 5})
        assert (dispatch(entries, ["q"], chance) is home) == stays


def test_the_only_worker_is_never_too_busy():
    dispatch, chance = PrefixDispatch(), Random(0)
    only = of(entry("only", 1000))
    for _ in range(2):
        assert dispatch(only, ["q"], chance) is only["only"]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=300),
    st.integers(1, 12),
)
def test_whoever_is_asked_has_not_much_more_to_do_than_the_mean(asked, workers):
    dispatch, chance = PrefixDispatch(above=0.25, slack=4, few=2), Random(0)
    entries = of(*(entry(str(n), 0) for n in range(workers)))
    for conversation, turns in asked:
        chosen = dispatch(entries, ["system", *chat(conversation, turns)], chance)
        others = [e.queue_length for e in entries.values() if e is not chosen]
        if others and chosen.queue_length > min(others):
            more = (0.25 * mean(others) + 4) * (1 + 2 / len(others))
            assert chosen.queue_length <= mean(others) + more
        busy(entries, **{chosen.address: chosen.queue_length + 1})


@pytest.mark.parametrize("remembered", [10, 100])
def test_only_beginnings_of_late_are_remembered(remembered):
    homes = Homes(remembered, 2)
    for number in range(1000):
        homes.add(f"{number}", "a")
        homes.add("again and again", "b")
        assert len(homes) <= remembered
    assert homes.of("999") == ("a",)
    assert homes.of("again and again") == ("b",)
    assert homes.of("0") == ()


def test_the_workers_of_late_are_remembered_for_a_beginning():
    homes = Homes(10, 2)
    for address in ("a", "b", "a", "c"):
        homes.add("x", address)
    assert homes.of("x") == ("a", "c")


acts = st.tuples(
    st.sampled_from(["register", "mute", "beat", "missed", "remove", "ask"]),
    st.sampled_from("abc"),
    st.sampled_from([0.0, 1.0, 4.0, 5.0, 6.0, 30.0, 91.0]),
)


@given(st.lists(acts, max_size=60))
def test_what_is_kept_between_changes_is_what_would_be_found_by_looking(acts):
    """The registry against one that looks through everybody each time."""
    registry, now = Registry(90, late_s=5), 0.0
    for act, address, after in acts:
        now += after
        told = set(registry.expire(now=now))
        entries = {e.address: e for e in registry.entries()}
        assert not told & entries.keys()
        for each in entries.values():
            silence = now - each.last_heart_beat
            assert not each.check_heart_beat or silence <= 90
            assert each.suspect or not each.prompt or silence <= 5
        reachable = [a for a, e in entries.items() if not e.suspect]
        candidates = registry.serving("m")
        assert list(candidates) == (reachable or list(entries))
        assert candidates.queues == sum(e.queue_length for e in candidates.values())
        assert candidates.speeds == sum(e.speed for e in candidates.values())
        if candidates:
            least = min(e.load for e in candidates.values())
            assert candidates.idlest(Random(0)).load == least
        if act in ("register", "mute"):
            registry.register(address, status("m"), now=now, check_heart_beat=act == "register")
        elif act == "beat":
            registry.heart_beat(address, int(after), now=now)
        elif act == "ask" and candidates:
            registry.sent(candidates.idlest(Random(1)).address)
        elif act == "missed":
            registry.missed(address)
        else:
            registry.remove(address)
