"""The simulated fleet: what has to hold whatever the figures are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SIMULATE = Path(__file__).parents[2] / "playground" / "simulate"
SMALL = ["--workers", "20", "--per-minute", "2000", "--warm-minutes", "0.5", "--minutes", "0.5"]
HOW = ["--jobs", "1", "--json"]


def simulated(*flags: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, str(SIMULATE / "dispatch.py"), *SMALL, *HOW, *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_model", SIMULATE / "worker_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_seed_gives_the_same_again_and_no_cache_beats_one_without_end():
    found = simulated()
    again = simulated()
    for method in ("lottery", "shortest_queue", "prefix"):
        assert found[method] == again[method]
        assert 0 < found[method]["hits / oracle's"] <= 1
        assert found[method]["lost"] == 0
        assert found[method]["load max / mean"] >= 1
    assert found["prefix"]["hits / oracle's"] > found["shortest_queue"]["hits / oracle's"]


@pytest.mark.slow
def test_one_worker_with_room_for_all_is_the_cache_without_end():
    alone = ["--workers", "1", "--per-minute", "60", "--room", "10000000"]
    found = simulated(*alone, "--methods", "shortest_queue")["shortest_queue"]
    assert found["hits / oracle's"] == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_workers_that_die_lose_what_had_begun_and_nothing_else():
    found = simulated("--die", "4", "--leave", "4", "--join", "8", "--methods", "prefix")["prefix"]
    assert found["asked again"] > 0
    assert 0 < found["lost"] < 0.1 * found["requests"]
    quiet = simulated("--leave", "4", "--join", "4", "--methods", "prefix")["prefix"]
    assert quiet["lost"] == 0


def test_steps_take_what_is_in_them(model):
    engine = model.Engine(model.Rates(1.0, 0.1, 0.01, step_tokens=50))
    first = model.Request("s", 1, 20, 0, 60, 3, arrived_s=0.0)
    engine.add(first, 0.0)
    assert engine.ends_s == pytest.approx(1 + 50 * 0.01)
    assert not engine.end_steps(engine.ends_s).first
    assert engine.ends_s == pytest.approx(1.5 + 1 + 30 * 0.01)
    assert engine.end_steps(engine.ends_s).first == [first]
    assert engine.ends_s == pytest.approx(2.8 + 2 * 1.1)  # two more tokens
    # Somebody comes in the midst of a step: it is looked at when that one ends.
    second = model.Request("s", 2, 20, 0, 10, 1, arrived_s=3.0)
    engine.add(second, 3.0)
    assert engine.ends_s == pytest.approx(3.9)
    engine.end_steps(engine.ends_s)
    assert second.hit == 16  # of 20 tokens one whole block
    told = engine.end_steps(engine.ends_s)
    assert told.first == [second]
    assert set(told.done) == {first, second}
    assert engine.queue_length == 0
    assert engine.ends_s is None


def test_what_is_longest_unused_goes_first_and_what_runs_stays(model):
    cache = model.Cache(100)
    asked = [model.Request(None, name, 0, 0, 30, 10, arrived_s=0.0) for name in "abc"]
    for request in asked[:2]:
        assert cache.take(request)
        cache.keep(request)
    assert not cache.take(asked[2])
    cache.drop(asked[0])
    assert cache.take(asked[2])
    grown = [model.Request(None, name, 0, 40, 30, 10, arrived_s=0.0) for name in "ab"]
    assert cache.found(grown[0]) == 0
    assert cache.found(grown[1]) == 32
