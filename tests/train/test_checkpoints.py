"""Checkpoints appear and go whole, whatever happens, and the right one is resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

import fastchat
from fastchat.errors import SettingsError
from fastchat.train.checkpoints import (
    checkpoint_to_resume,
    move_model,
    reveal_checkpoint,
    rotate,
    staging_folder,
)
from tests.train.conftest import TALKS, Train, write_talks

ROOT = Path(fastchat.__file__).parents[1]


def checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text("{}" if whole else "{")
    return path


def steps(folder: Path) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")}


def test_the_last_whole_checkpoint_is_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert checkpoint_to_resume(tmp_path / "nowhere", None) is None
    assert checkpoint_to_resume(tmp_path, None) is None
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, whole=False)
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoint_to_resume(tmp_path, None) == newest
    assert checkpoint_to_resume(tmp_path, "True") == newest
    assert checkpoint_to_resume(tmp_path, "False") is None
    assert "checkpoint-11 is not whole" in caplog.text


def test_a_checkpoint_that_is_asked_for_wins(tmp_path: Path) -> None:
    older = checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2)
    assert checkpoint_to_resume(tmp_path, str(older)) == older


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    broken = checkpoint(tmp_path, 1, whole=False)
    for asked in (str(broken), str(tmp_path / "nowhere")):
        with pytest.raises(SettingsError, match="is not a whole checkpoint"):
            checkpoint_to_resume(tmp_path, asked)
    with pytest.raises(SettingsError, match="holds no checkpoint"):
        checkpoint_to_resume(tmp_path, "true")


def test_what_was_being_written_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = checkpoint(tmp_path, 10)
    checkpoint(staging_folder(tmp_path, create=True), 15)
    assert checkpoint_to_resume(tmp_path, None) == newest
    assert "saving.tmp/checkpoint-15 is not whole" in caplog.text


def test_a_checkpoint_takes_the_place_of_one_of_the_same_name(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 5) / "old.bin").touch()
    revealed = reveal_checkpoint(checkpoint(staging_folder(tmp_path, create=True), 5))
    assert revealed == tmp_path / "checkpoint-5"
    assert [path.name for path in revealed.iterdir()] == ["trainer_state.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


@given(
    whole=st.sets(st.integers(1, 30), max_size=6),
    broken=st.sets(st.integers(31, 60), max_size=3),
    limit=st.none() | st.integers(-1, 7),
    best=st.none() | st.integers(1, 30),
)
def test_only_the_oldest_whole_checkpoints_beyond_the_limit_go(
    tmp_path_factory: pytest.TempPathFactory,
    whole: set[int],
    broken: set[int],
    limit: int | None,
    best: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("out")
    for step in whole | broken:
        checkpoint(folder, step, whole=step in whole)
    rotate(folder, limit, None if best is None else str(folder / f"checkpoint-{best}"))
    left = steps(folder)
    assert broken <= left
    kept = left - broken
    gone = whole - kept
    if limit is None or limit < 1:
        assert not gone
        return
    dear = {max(whole, default=0), best} & whole
    assert dear <= kept
    assert len(kept) == min(len(whole), max(limit, len(dear)))
    assert all(step < min(kept - dear, default=99) for step in gone)


KILLED = """
import os, signal, sys
from pathlib import Path
from fastchat.train.checkpoints import (
    checkpoint_to_resume, reveal_checkpoint, rotate, staging_folder,
)

def save(folder, step):
    path = staging_folder(folder, create=True) / f"checkpoint-{step}"
    path.mkdir()
    (path / "weights").write_text("w" * 9)
    (path / "trainer_state.json").write_text("{}")
    reveal_checkpoint(path)
    rotate(folder, 1, None)

def save_until(folder, step, moment):
    passed = 0
    def watch(event, arguments):
        nonlocal passed
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    save(folder, step)
    os._exit(0)

out, moment, status = Path(sys.argv[1]), 0, None
save(out, 1)
last = 1
while status != 0:
    moment += 1
    child = os.fork()
    if child == 0:
        save_until(out, last + 1, moment)
    status = os.waitpid(child, 0)[1]
    found = checkpoint_to_resume(out, None)
    step = int(found.name.rpartition("-")[2])
    assert step in (last, last + 1), (moment, found)
    for path in out.glob("checkpoint-*"):
        assert (path / "weights").read_text() == "w" * 9, (moment, path)
        assert (path / "trainer_state.json").exists(), (moment, path)
    last = step
save(out, last + 1)
assert [path.name for path in out.iterdir()] == [f"checkpoint-{last + 1}"]
print("moments", moment)
"""
"""Saves a checkpoint over and over, each time killed one step further on."""


def test_a_kill_at_any_moment_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) > 15


FULL = """
import resource, sys
from transformers import TrainerCallback
from fastchat.train.run import run, train

class FillTheDisk(TrainerCallback):
    def on_save(self, args, state, control, **_):
        if state.global_step == 2:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))

sys.exit(run(lambda: train(callbacks=[FillTheDisk()])))
"""
"""A run that can write no more than small files once it has saved for the first time."""


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_the_run_goes_on_from_there(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    data = write_talks(tmp_path / "talks.json", TALKS * 2)
    flags: dict[str, Any] = {
        "data_path": data,
        "output_dir": tmp_path / "out",
        "per_device_train_batch_size": 2,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 1,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
    }
    fine_tune(**(flags | {"output_dir": tmp_path / "whole"}))
    given = {**flags, "model_name_or_path": tiny_model, "report_to": "none"}
    result = subprocess.run(
        [
            *(sys.executable, "-c", FULL),
            *(text for name, value in given.items() for text in (f"--{name}", str(value))),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 1, result.stderr[-5000:]
    assert "error: checkpoint-4 could not be saved" in result.stderr
    assert "Traceback" not in result.stderr
    assert steps(tmp_path / "out") == {2}
    assert not (tmp_path / "out" / "saving.tmp").exists()
    fine_tune(**flags)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= state.global_step >= self.step


def test_filled_bins_are_resumed_amid_an_epoch(fine_tune: Train, tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "data_path": write_talks(tmp_path / "talks.json", TALKS * 3),
        "tokens_per_batch": 80,
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fine_tune(output_dir=whole, **flags)
    assert len(losses(whole)) > 6
    fine_tune([StopAt(3)], output_dir=stopped, **flags)
    assert losses(stopped) == losses(whole)[:3]
    fine_tune(output_dir=stopped, **flags)
    assert losses(stopped) == losses(whole)


def test_the_best_checkpoint_outlives_the_limit_and_is_named_by_its_place(
    fine_tune: Train, talks_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fine_tune(
        eval_data_path=talks_file,
        max_steps=4,
        learning_rate=5.0,  # each step makes it worse
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=2,
        load_best_model_at_end=True,
    )
    state = json.loads((out / "checkpoint-4" / "trainer_state.json").read_text())
    best = state["best_global_step"]
    assert best < 3
    assert state["best_model_checkpoint"] == str(out / f"checkpoint-{best}")
    assert steps(out) == {best, 4}


def test_a_model_replaces_an_older_one_and_touches_nothing_else(tmp_path: Path) -> None:
    keep = ("notes.txt", "models.json", "trainer_log.bin", "tokenizer.model")
    stale = (
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "adapter_model.safetensors",
        "adapter_config.json",
    )
    for name in (*keep, *stale):
        (tmp_path / name).write_text("old")
    checkpoint(tmp_path, 1)
    staging = staging_folder(tmp_path, create=True)
    (staging / "left_over.txt").touch()
    assert staging_folder(tmp_path, create=True) == staging
    assert not list(staging.iterdir())
    for name in ("config.json", "model.safetensors", "tokenizer.model"):
        (staging / name).write_text("new")
    move_model(staging, tmp_path)
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {
        "notes.txt": "old",
        "models.json": "old",
        "trainer_log.bin": "old",
        "tokenizer.model": "new",
        "config.json": "new",
        "model.safetensors": "new",
    }
    assert not staging.exists()
    assert (tmp_path / "checkpoint-1").exists()
