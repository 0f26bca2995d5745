"""What a served model is called."""

from __future__ import annotations

from collections.abc import Sequence


def model_names(path: str, names: Sequence[str] | None) -> list[str]:
    """The names a model is served under: those given, or the last part of its path."""
    return list(names) if names else [path.rstrip("/").split("/")[-1]]
