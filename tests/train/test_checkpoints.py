"""Which checkpoint is resumed, and how a finished model appears in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastchat.errors import SettingsError
from fastchat.train.checkpoints import checkpoint_to_resume, move_model, staging_folder


def checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text("{}" if whole else "{")
    return path


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
