"""Folders of checkpoints: which one to go on from, and how a finished model appears.

Knows nothing of torch or of what the files hold.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from fastchat.errors import SettingsError

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
"""Written last into a checkpoint, so a checkpoint that has it is whole."""

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
    steps = {
        int(folder.name.rpartition("-")[2]): folder
        for folder in output_dir.glob("checkpoint-*")
        if folder.is_dir() and folder.name.rpartition("-")[2].isdecimal()
    }
    for step in sorted(steps, reverse=True):
        if _is_whole(steps[step]):
            return steps[step]
        logger.warning("%s is not whole and is passed over", steps[step])
    return None


def _is_whole(folder: Path) -> bool:
    try:
        json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def staging_folder(folder: Path, *, create: bool) -> Path:
    """An empty folder inside another, to write a model into before it is moved there."""
    staging = folder / "saving.tmp"
    if create:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    return staging


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
