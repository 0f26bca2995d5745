"""Finds a model's files: a folder as it is, a hub repository by downloading it once.

Knows nothing of what the files mean. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from fastchat.errors import CheckpointError

_SMALL_FILES = ("*.json", "*.model", "*.jinja", "*.txt", "*.md")
_WEIGHT_FILES = ("*.safetensors", "*.bin")


def local_folder(model_path: str | Path, *, revision: str = "main", weights: bool = True) -> Path:
    """The folder that holds a model's files.

    Args:
        model_path: a folder, or a hub id "owner/name", which is downloaded (or taken from
            the cache; `HF_HUB_OFFLINE=1` allows nothing else). With
            `FASTCHAT_USE_MODELSCOPE=true` ids are ModelScope's.
        revision: of the hub repository.
        weights: download the weights too.

    Raises:
        CheckpointError: no such folder, or the repository cannot be reached.
    """
    if Path(model_path).is_dir():
        return Path(model_path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model_path)):
        raise CheckpointError(
            f"There is no model folder {model_path}.",
            hint="Give an existing folder, or a hub id such as IEITYuan/Yuan2-2B-hf.",
        )
    try:
        if os.environ.get("FASTCHAT_USE_MODELSCOPE", "false").lower() == "true":
            return _from_modelscope(str(model_path), revision, weights=weights)
        return _from_hub(str(model_path), revision, weights=weights)
    except Exception as error:  # the hub clients' errors have no common base
        raise CheckpointError(
            f"There is no folder {model_path}, and as a hub id it could not be downloaded: {error}",
            hint="Check the name, the network and HF_HUB_OFFLINE.",
        ) from error


def find_file(folder: str | Path, name: str) -> Path | None:
    """A file of a model folder, if it is there."""
    path = Path(folder) / name
    return path if path.is_file() else None


def read_json(folder: str | Path, name: str) -> dict[str, Any] | None:
    """The object in a JSON file of a model folder; None where there is no such file.

    Raises:
        CheckpointError: the file does not hold a JSON object.
    """
    path = find_file(folder, name)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a JSON object.")
    return content


def model_type_of(folder: str | Path) -> str | None:
    """The `model_type` that config.json names; None without a config.

    Raises:
        CheckpointError: config.json does not hold a JSON object.
    """
    config = read_json(folder, "config.json")
    return None if config is None else config.get("model_type")


def _from_hub(name: str, revision: str, *, weights: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    patterns = [*_SMALL_FILES]
    if weights and constants.HF_HUB_OFFLINE:
        patterns += _WEIGHT_FILES
    elif weights:
        # Many repositories hold both formats; one is enough.
        files = HfApi().list_repo_files(name, revision=revision)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        patterns.append(_WEIGHT_FILES[0 if has_safetensors else 1])
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def _from_modelscope(name: str, revision: str, *, weights: bool) -> Path:
    from modelscope.hub.snapshot_download import snapshot_download

    return Path(
        snapshot_download(
            model_id=name,
            revision=None if revision == "main" else revision,
            ignore_file_pattern=None if weights else list(_WEIGHT_FILES),
        )
    )
