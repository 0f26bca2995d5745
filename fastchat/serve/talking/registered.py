"""The file of API models that `--register-api-endpoint-file` names, as FastChat writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastchat.errors import SettingsError
from fastchat.serve.talking.answer import Sampling
from fastchat.serve.talking.openai_server import OpenAIServer

_FLAG = "--register-api-endpoint-file"


@dataclass(frozen=True, slots=True)
class ApiModel:
    """A model of another server.

    Attributes:
        anony_only: shown in battles only.
        recommended: values to begin with.
        system: a system text to begin with.
    """

    name: str
    server: OpenAIServer
    anony_only: bool = False
    recommended: Sampling = field(default_factory=Sampling)
    system: str = ""


def read_api_models(path: Path) -> list[ApiModel]:
    """Reads the file: a JSON object from names to servers.

    Raises:
        SettingsError: it cannot be read, or an entry is incomplete; names the entry.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{_FLAG} {path} cannot be read: {error}.", param=_FLAG) from error
    if not isinstance(entries, dict):
        raise SettingsError(f"{_FLAG} {path} holds no JSON object.", param=_FLAG)
    return [_model(path, name, entry) for name, entry in entries.items()]


def _model(path: Path, name: str, entry: Any) -> ApiModel:
    if not isinstance(entry, dict):
        raise _wrong(path, name, "is no JSON object")
    if entry.get("api_type") != "openai":
        raise _wrong(path, name, f"has api_type {entry.get('api_type')!r}; 'openai' is known")
    for needed in ("model_name", "api_base"):
        if not isinstance(entry.get(needed), str) or not entry[needed]:
            raise _wrong(path, name, f"needs {needed}")
    config = entry.get("recommended_config") or {}
    if not isinstance(config, Mapping):
        raise _wrong(path, name, "has a recommended_config that is no JSON object")
    return ApiModel(
        name,
        OpenAIServer(
            entry["api_base"],
            str(entry.get("api_key") or ""),
            {name: entry["model_name"]},
            dict(config.get("extra_body") or {}),
        ),
        anony_only=bool(entry.get("anony_only", False)),
        recommended=Sampling(
            temperature=config.get("temperature"),
            top_p=config.get("top_p"),
            max_new_tokens=config.get("max_new_tokens"),
        ),
        system=str(entry.get("custom_system_prompt") or ""),
    )


def _wrong(path: Path, name: str, what: str) -> SettingsError:
    return SettingsError(f"{_FLAG} {path}: the entry {name!r} {what}.", param=_FLAG)
