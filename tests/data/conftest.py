"""Real Yuan2 tokenizers: the demo checkpoint's, and the published one where it is given."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import fastchat
from fastchat.chat import YuanChatRenderer
from fastchat.model.tokenization_yuan import YuanTokenizer

_DEMO = Path(fastchat.__file__).parent / "demo" / "checkpoint"
_PUBLISHED = os.environ.get("YUAN2_TOKENIZER")


@pytest.fixture(scope="session", params=["demo", "published"])
def tokenizer(request: pytest.FixtureRequest) -> YuanTokenizer:
    if request.param == "published" and not _PUBLISHED:
        pytest.skip("YUAN2_TOKENIZER does not name the published tokenizer's folder")
    folder = _DEMO if request.param == "demo" else Path(_PUBLISHED or "")
    if not (folder / "tokenizer.model").exists():
        pytest.skip(f"there is no tokenizer.model in {folder}")
    return YuanTokenizer(str(folder / "tokenizer.model"))


@pytest.fixture(scope="session")
def renderer(tokenizer: YuanTokenizer) -> YuanChatRenderer:
    return YuanChatRenderer(tokenizer)


def talk_item(*texts: Any, **more: Any) -> dict[str, Any]:
    """A ShareGPT item: questions and answers in turn."""
    turns = [
        {"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)
    ]
    return {"conversations": turns, **more}


def write_json(path: Path, items: Any) -> Path:
    path.write_text(json.dumps(items))
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
