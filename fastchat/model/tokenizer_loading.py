"""Loads the right tokenizer for a model folder. Knows which folders hold a Yuan2 tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastchat.errors import CheckpointError, FastChatError
from fastchat.model.model_folder import find_file, local_folder, model_type_of, read_json
from fastchat.model.tokenization_yuan import EOD, SEP, YuanTokenizer


def load_tokenizer(path: str | Path, *, revision: str = "main", **kwargs: Any) -> Any:
    """The tokenizer of a model folder or hub id.

    A Yuan2 tokenizer is recognised by config.json's model type, by the class named in
    tokenizer_config.json, or, in a folder without either, by its vocabulary. It never goes
    through a library class that tokenizes Yuan2 wrongly.

    Args:
        path: folder or hub id.
        revision: of the hub repository.
        kwargs: as for transformers' `from_pretrained`.

    Raises:
        CheckpointError: no readable tokenizer there.
    """
    from transformers import AutoTokenizer

    folder = local_folder(path, revision=revision, weights=False)
    loader = YuanTokenizer if is_yuan_folder(folder) else AutoTokenizer
    kwargs.setdefault("trust_remote_code", False)
    if loader is YuanTokenizer and find_file(folder, "tokenizer.model") is None:
        raise CheckpointError(
            f"{folder} is a Yuan2 model, but has no tokenizer.model.",
            hint="Copy tokenizer.model from the published checkpoint into the folder.",
        )
    try:
        return loader.from_pretrained(str(folder), **kwargs)
    except FastChatError:
        raise
    except Exception as error:  # whatever a damaged folder makes the library raise
        raise CheckpointError(
            f"No tokenizer could be read from {path}: {error}",
            hint="Give a folder with the model's tokenizer files (for Yuan2: tokenizer.model).",
        ) from error


def is_yuan_folder(folder: str | Path) -> bool:
    """Whether a model folder belongs to Yuan2, by what it holds, not by its name."""
    model_type = model_type_of(folder)
    if model_type is not None:
        return model_type == "yuan"
    config = read_json(folder, "tokenizer_config.json") or {}
    return config.get("tokenizer_class") == YuanTokenizer.__name__ or _has_yuan_words(folder)


def _has_yuan_words(folder: str | Path) -> bool:
    import sentencepiece

    path = find_file(folder, "tokenizer.model")
    if path is None:
        return False
    try:
        words = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error
    return all(words.piece_to_id(token) != words.unk_id() for token in (EOD, SEP, "<n>"))
