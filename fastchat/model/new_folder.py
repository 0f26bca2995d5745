"""A model folder that appears under its name only when it is whole.

Knows nothing of what is written into it. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastchat.errors import CheckpointError, SettingsError

ORIGIN_FILE = "fastchat_origin.json"
"""Says which tool made a folder from what, so that the same run may make it again."""

_SMALL_FILES = ("*.json", "*.model", "*.jinja", "*.txt")
_NOT_COPIED = ("*.index.json", "adapter_config.json", "trainer_state.json", ORIGIN_FILE)


@contextlib.contextmanager
def new_folder(target: str | Path, tool: str, sources: Mapping[str, str | Path]) -> Iterator[Path]:
    """A folder to write into, which becomes `target` if nothing goes wrong.

    Args:
        target: must not exist, be empty, or be what the same tool made from the same files.
        tool: who writes.
        sources: the folders that it reads, by what they are to it.

    Raises:
        SettingsError: `target` is something else, or one of the sources.
        CheckpointError: it cannot be written.
    """
    path = Path(target)
    origin = {"tool": tool, "sources": _fingerprint(sources)}
    _check_free(path, origin, sources)
    staging = path.with_name(f".{path.name}.unfinished")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        (staging / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        _replace(staging, path)
    except OSError as error:
        raise CheckpointError(f"{path} could not be written: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def copy_small_files(source: Path, target: Path) -> None:
    """Copies config, tokenizer, chat template and generation config; no weights."""
    for pattern in _SMALL_FILES:
        for file in source.glob(pattern):
            if not any(file.match(name) for name in _NOT_COPIED):
                shutil.copy(file, target)


def _check_free(
    path: Path, origin: Mapping[str, object], sources: Mapping[str, str | Path]
) -> None:
    for name, source in sources.items():
        if Path(source).resolve() == path.resolve():
            raise SettingsError(f"The {name} and the target are the same folder, {path}.")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        made = json.loads((path / ORIGIN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = None
    if made != origin:
        raise SettingsError(
            f"{path} exists and holds something else than this run makes.",
            hint="Name another target, or remove it.",
        )


def _replace(staging: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    staging.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _fingerprint(sources: Mapping[str, str | Path]) -> dict[str, str]:
    """Tells folders apart by their files' names, sizes and times of change."""
    prints = {}
    for name, folder in sources.items():
        files = sorted(file for file in Path(folder).iterdir() if file.is_file())
        facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        prints[name] = hashlib.sha256(repr(facts).encode()).hexdigest()
    return prints
