"""Folders of checkpoints: how they appear and go, and which one to go on from.

A checkpoint is written inside a staging folder and gets its name when it is whole; one
that is to go loses its name first. So whatever moment a run is killed at, what has the
name of a checkpoint is one. Knows nothing of torch or of what the files hold.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path

from fastchat.errors import SettingsError

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
"""Written last into a checkpoint, so a checkpoint that has it is whole."""

_STAGING, _LEAVING = "saving.tmp", "deleting.tmp"

_CONFIG_FILES = ("config.json", "adapter_config.json")
_WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model)\b.*\.(safetensors|bin|json)")


def checkpoint_to_resume(output_dir: Path, asked: str | None) -> Path | None:
    """The checkpoint that a run goes on from, or None to start anew.

    Args:
        output_dir: where the run saves.
        asked: the value of --resume_from_checkpoint: a folder; "True" for the last one in
            `output_dir`, and an error if there is none; "False" for none; None for the
            last one if there is one.

    Raises:
        SettingsError: the checkpoint asked for is not there, or is not whole.
    """
    wish = (asked or "").lower()
    if wish == "false":
        return None
    if wish not in ("", "true"):
        folder = Path(str(asked))
        if not _is_whole(folder):
            raise SettingsError(
                f"--resume_from_checkpoint {folder} is not a whole checkpoint:"
                f" there is no readable {STATE_FILE}.",
                param="resume_from_checkpoint",
            )
        return folder
    found = last_checkpoint(output_dir)
    if found is None and wish == "true":
        raise SettingsError(
            f"--resume_from_checkpoint is true, but {output_dir} holds no checkpoint.",
            param="resume_from_checkpoint",
        )
    return found


def last_checkpoint(output_dir: Path) -> Path | None:
    """The latest whole `checkpoint-N`; half-written ones are passed over with a warning."""
    folders = _checkpoints(output_dir)
    whole = [folder for folder in folders if _is_whole(folder)]
    last = whole[-1] if whole else None
    newer = folders[folders.index(last) + 1 :] if last else folders
    for folder in [*newer, *_checkpoints(output_dir / _STAGING)]:
        logger.warning("%s is not whole and is passed over", folder)
    return last


def _checkpoints(folder: Path) -> list[Path]:
    """What is named `checkpoint-N` in a folder, by step."""
    steps = {
        int(number): path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and (number := path.name.rpartition("-")[2]).isdecimal()
    }
    return [steps[step] for step in sorted(steps)]


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def staging_folder(folder: Path, *, create: bool) -> Path:
    """An empty folder inside another, to write into before what is written is moved there.

    What an earlier run could not finish, writing or deleting, goes.
    """
    staging = folder / _STAGING
    if create:
        clear_staging(folder)
        shutil.rmtree(folder / _LEAVING, ignore_errors=True)
        staging.mkdir(parents=True)
    return staging


def clear_staging(folder: Path) -> None:
    """Gives back the room of what could not be finished."""
    shutil.rmtree(folder / _STAGING, ignore_errors=True)


def reveal_checkpoint(checkpoint: Path) -> Path:
    """Moves a checkpoint out of the staging folder that it alone is in, in one step.

    Its files are on the disk before, so that not even a machine which loses its power
    leaves a part. An older checkpoint of the same name, left by a run that was begun
    anew, goes.

    Returns:
        The checkpoint, under its lasting name.

    Raises:
        OSError: the disk is full, or the like.
    """
    staging = checkpoint.parent
    for path in checkpoint.rglob("*"):
        _to_disk(path)
    lasting = staging.parent / checkpoint.name
    if lasting.exists():
        _remove(lasting)
    checkpoint.rename(lasting)
    _to_disk(staging.parent)
    staging.rmdir()
    return lasting


def rotate(output_dir: Path, limit: int | None, best: str | None) -> None:
    """Deletes the oldest whole checkpoints beyond a number.

    Args:
        output_dir: the folder that holds them.
        limit: how many may stay; None or less than 1 for all.
        best: path of one that stays in any case, as does the last one.
    """
    whole = [folder for folder in _checkpoints(output_dir) if _is_whole(folder)]
    if limit is None or limit < 1 or not whole:
        return
    kept = {whole[-1].name} | ({Path(best).name} if best else set())
    others = [folder for folder in whole if folder.name not in kept]
    surplus = len(whole) - max(limit, len(whole) - len(others))
    for folder in others[: max(0, surplus)]:
        _remove(folder)


def _remove(checkpoint: Path) -> None:
    leaving = checkpoint.with_name(_LEAVING)
    shutil.rmtree(leaving, ignore_errors=True)
    checkpoint.rename(leaving)
    shutil.rmtree(leaving)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_model(staging: Path, folder: Path) -> None:
    """Moves a model's files from a staging folder into its parent; the config comes last.

    An older model there loses its config first and its weight files afterwards.
    """
    files = sorted(staging.iterdir(), key=lambda file: file.name in _CONFIG_FILES)
    fresh = {file.name for file in files}
    for name in _CONFIG_FILES:
        (folder / name).unlink(missing_ok=True)
    for old in folder.iterdir():
        if old.is_file() and _WEIGHTS.fullmatch(old.name) and old.name not in fresh:
            old.unlink()
    for file in files:
        file.replace(folder / file.name)
    staging.rmdir()
