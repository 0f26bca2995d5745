"""Keeps tokenised data between runs: a file each, found by what it was made of.

The key is taken over the data file's bytes, the tokenizer, the chat format, the mode, the
length limit and this project's own code for rows, so a file found is always the right one.
The first of several processes makes it; the others wait for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastchat
from fastchat.cache_folder import cache_folder, locked, writable
from fastchat.chat import ChatRenderer
from fastchat.data.item_file import ItemFile
from fastchat.errors import RequestError

logger = logging.getLogger(__name__)

_CODE = ("data", "chat.py", "conversation.py", "prompt_styles.py", "model/tokenization_yuan.py")


def cached_items(key: str, write: Callable[[Path], None], folder: Path | None = None) -> ItemFile:
    """The items under a key; made, if they are not there yet.

    Args:
        key: from `digest`.
        write: makes the file at the path it is given.
        folder: `cache_folder()` if None; a temporary one if it cannot be written to.
    """
    folder = writable(cache_folder() if folder is None else folder, "tokenised data")
    path = folder / f"{key}.arrow"
    if not path.exists():
        with locked(folder / f"{key}.lock"):
            if not path.exists():
                write(path)
    logger.info("tokenised data is in %s", path)
    return ItemFile(path)


def digest(path: Path, tokenizer: Any, renderer: ChatRenderer, *settings: object) -> str:
    """The key of a data file read with a model's tokenizer and renderer."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as data:
        while piece := data.read(1 << 20):
            state.update(piece)
    for part in (_vocabulary(tokenizer), _format(renderer), tokenizer.chat_template):
        state.update(part if isinstance(part, bytes) else repr(part).encode())
    state.update(repr(settings).encode())
    for source in _sources():
        state.update(source.read_bytes())
    return state.hexdigest()


def _format(renderer: ChatRenderer) -> list[object]:
    """The chat format, as what it makes of a conversation, with and without a system text."""
    talk = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    made: list[object] = [type(renderer).__name__, renderer.answer_ids("answer")]
    for messages in (talk, talk[1:]):
        try:
            made.append(renderer.render(messages).ids)
        except RequestError as error:
            made.append(str(error))
    return made


def _vocabulary(tokenizer: Any) -> bytes:
    from fastchat.model.tokenization_yuan import YuanTokenizer

    added = repr(sorted(tokenizer.get_added_vocab().items())).encode()
    if isinstance(tokenizer, YuanTokenizer):
        model: bytes = tokenizer.sp_model.serialized_model_proto()
        return model + added
    if tokenizer.is_fast:
        text: str = tokenizer.backend_tokenizer.to_str()
        return text.encode() + added
    return repr(sorted(tokenizer.get_vocab().items())).encode() + added


def _sources() -> list[Path]:
    root = Path(fastchat.__file__).parent
    folders = [root / name for name in _CODE]
    return [
        file
        for place in folders
        for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])
    ]
