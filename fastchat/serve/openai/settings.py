"""What the API server can be told. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fastchat.constants import (
    CONTROLLER_ADDRESS,
    WORKER_API_EMBEDDING_BATCH_SIZE,
    WORKER_API_TIMEOUT,
)
from fastchat.errors import SettingsError
from fastchat.serve.draining import DRAIN_S
from fastchat.serve.openai.limits import ApiKey


def read_api_keys(text: str) -> list[ApiKey] | None:
    """Reads keys separated by commas or lines, a JSON list, or `@FILE` holding either.

    An item of a JSON list may be an object with a key, a name, requests_per_minute and
    tokens_per_minute.

    Returns:
        The keys; None if there are none, which leaves the API open.

    Raises:
        SettingsError: the file cannot be read, or the list is broken.
    """
    text = text.strip()
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"The file of API keys {text[1:]} cannot be read: {error.strerror}.",
                param="--api-keys",
            ) from error
    if not text.startswith("["):
        keys = [key.strip() for key in text.replace("\n", ",").split(",")]
        return [ApiKey(key) for key in keys if key] or None
    try:
        return [_api_key(item, number) for number, item in enumerate(json.loads(text))] or None
    except ValueError as error:
        raise SettingsError(
            f"The API keys are no JSON list: {error}.", param="--api-keys"
        ) from error


def _api_key(item: Any, number: int) -> ApiKey:
    known = {each.name for each in fields(ApiKey)}
    if isinstance(item, str) and item:
        return ApiKey(item)
    limits = ("requests_per_minute", "tokens_per_minute")
    if (
        not isinstance(item, Mapping)
        or not isinstance(item.get("key"), str)
        or not item["key"]
        or not item.keys() <= known
        or not all(item.get(name) is None or _is_count(item[name]) for name in limits)
    ):
        raise SettingsError(
            f"Entry {number} of the API keys is no key and no object with a key and perhaps"
            f" {', '.join(sorted(known - {'key'}))} (limits are whole numbers of at least 1).",
            param="--api-keys",
        )
    return ApiKey(**{"name": str(number), **item})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _keys_of_environment() -> list[ApiKey] | None:
    return read_api_keys(os.environ.get("FASTCHAT_API_KEYS") or os.environ.get("API_KEYS", ""))


@dataclass(slots=True)
class AppSettings:
    """Settings of the API server; may be changed while it runs.

    Attributes:
        controller_address: the controller's URL; CONTROLLER_ADDRESS in the environment.
        api_keys: keys of which a client must send one; None leaves the API open.
            FASTCHAT_API_KEYS or API_KEYS in the environment.
        worker_timeout_s: how long a worker may be silent between two chunks.
        queue_timeout_s: how long a request may wait before it is begun; None for as long as
            it takes.
        embedding_batch_size: inputs sent to a worker at once.
        max_body_bytes: of a request.
        body_timeout_s: how long a client may be silent while it sends a request.
        drain_s: what runs may take so long to finish when the server is asked to end.
    """

    controller_address: str = field(
        default_factory=lambda: os.environ.get("CONTROLLER_ADDRESS", CONTROLLER_ADDRESS)
    )
    api_keys: Sequence[ApiKey | str] | None = field(default_factory=_keys_of_environment)
    worker_timeout_s: float = WORKER_API_TIMEOUT
    queue_timeout_s: float | None = None
    embedding_batch_size: int = WORKER_API_EMBEDDING_BATCH_SIZE
    max_body_bytes: int = 8 * 1024 * 1024
    body_timeout_s: float = 30.0
    drain_s: float = DRAIN_S


@dataclass(frozen=True, slots=True)
class CorsSettings:
    """Which web pages may call the API from a browser.

    Raises (when built):
        SettingsError: credentials for every origin, which would let any page act as its
            visitor.
    """

    allowed_origins: list[str]
    allowed_methods: list[str]
    allowed_headers: list[str]
    allow_credentials: bool = False

    def __post_init__(self) -> None:
        if self.allow_credentials and "*" in self.allowed_origins:
            raise SettingsError(
                "--allow-credentials with the origin '*' would let every web page act as its"
                " visitor.",
                hint="Name the pages, such as --allowed-origins '[\"https://chat.example.org\"]'.",
                param="--allow-credentials",
            )
