"""What the API server can be told. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from fastchat.constants import WORKER_API_EMBEDDING_BATCH_SIZE, WORKER_API_TIMEOUT
from fastchat.errors import SettingsError

CONTROLLER_ADDRESS = "http://localhost:21001"


def read_api_keys(text: str) -> list[str] | None:
    """Reads keys separated by commas or lines, a JSON list, or `@FILE` holding either.

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
    if text.startswith("["):
        try:
            keys = [str(key) for key in json.loads(text)]
        except ValueError as error:
            raise SettingsError(
                f"The API keys are no JSON list: {error}.", param="--api-keys"
            ) from error
    else:
        keys = [key.strip() for key in text.replace("\n", ",").split(",")]
    return [key for key in keys if key] or None


def _keys_of_environment() -> list[str] | None:
    return read_api_keys(os.environ.get("FASTCHAT_API_KEYS") or os.environ.get("API_KEYS", ""))


@dataclass(slots=True)
class AppSettings:
    """Settings of the API server; may be changed while it runs.

    Attributes:
        controller_address: the controller's URL; CONTROLLER_ADDRESS in the environment.
        api_keys: keys of which a client must send one; None leaves the API open.
            FASTCHAT_API_KEYS or API_KEYS in the environment.
        worker_timeout_s: how long a worker may be silent between two chunks.
        embedding_batch_size: inputs sent to a worker at once.
    """

    controller_address: str = field(
        default_factory=lambda: os.environ.get("CONTROLLER_ADDRESS", CONTROLLER_ADDRESS)
    )
    api_keys: list[str] | None = field(default_factory=_keys_of_environment)
    worker_timeout_s: float = WORKER_API_TIMEOUT
    embedding_batch_size: int = WORKER_API_EMBEDDING_BATCH_SIZE


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
