"""Runs that the page starts: what is typed for them, and that they are found again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from importlib import resources
from pathlib import Path

import pytest

from fastchat.errors import SettingsError
from fastchat.serve.web.plots import loss_plot
from fastchat.serve.web.training import KINDS, MODES, Plan, Runs

PATIENCE_S = 120.0
DEMO = Path(str(resources.files("fastchat.demo")))


def patiently(condition):
    """Looks now and then, and leaves the processor to the process that is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        threading.Event().wait(0.2)


def plan(tmp_path, **more):
    fields = {
        "kind": "full",
        "mode": MODES[0],
        "model": str(DEMO / "checkpoint"),
        "data": str(DEMO / "data" / "dummy_conversation.json"),
        "output": str(tmp_path / "out"),
        **more,
    }
    return Plan(**fields)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_a_command_that_could_be_typed(tmp_path, kind):
    command = plan(tmp_path, kind=kind, mode=MODES[1], more="--bf16 True --seed '7'").command()
    assert command[:3] == [sys.executable, "-m", KINDS[kind][0]]
    assert command[-4:] == ["--bf16", "True", "--seed", "7"]
    assert command[command.index("--last_response_loss") + 1] == "True"
    assert ("--q_lora" in command) == (kind == "qlora")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"model": " "}, "model is missing"),
        ({"data": "/no/where.json"}, "no data file"),
        ({"recipe": "/no/where.yaml"}, "no recipe"),
        ({"more": "'"}, "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_with_a_reason(tmp_path, more, reason):
    with pytest.raises(SettingsError, match=reason):
        plan(tmp_path, **more).command()


@pytest.mark.slow
def test_a_run_goes_on_when_the_server_is_another_one_and_can_be_stopped(tmp_path):
    state = tmp_path / "training.json"
    assert Runs(state).progress() is None
    first = Runs(state)
    first.start(plan(tmp_path, epochs=500, more="--save_strategy no --use_cpu True"))
    with pytest.raises(SettingsError, match="goes on already"):
        first.start(plan(tmp_path))
    second = Runs(state)
    try:
        patiently(lambda: second.progress().losses or not second.progress().running)
        found = second.progress()
        assert found.running, found.log
        assert found.losses[0][0] >= 1
        assert found.output == str(tmp_path / "out")
        second.stop()
        patiently(lambda: not second.progress().running)
    finally:
        first.stop()
        patiently(lambda: not first.progress().running)
    assert not second.progress().running


def test_a_number_that_is_another_process_by_now_is_not_taken_for_the_run(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    state = tmp_path / "training.json"
    told = {"pid": other.pid, "born": 1, "output": str(tmp_path)}
    state.write_text(json.dumps(told))
    runs = Runs(state)
    assert not runs.progress().running
    runs.stop()
    assert other.poll() is None
    other.communicate(b"\n")


def test_the_loss_is_drawn():
    assert "polyline" in loss_plot([(1, 2.0), (2, 1.0)], "Loss")
    assert "polyline" in loss_plot([(0, 2.0)], "Loss")
