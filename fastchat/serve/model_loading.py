"""Loads the model that an entry point's flags describe, and says what it is called."""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.engine.from_flags import load_model

__all__ = ["load_model", "model_names"]


def model_names(path: str, names: Sequence[str] | None) -> list[str]:
    """The names a model is served under: those given, or the last part of its path."""
    return list(names) if names else [path.rstrip("/").split("/")[-1]]
