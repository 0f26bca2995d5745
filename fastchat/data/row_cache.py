"""Keeps tokenised data between runs: a file each, found by what it was made of.

The key is taken over the data file's bytes, the tokenizer, the chat format, the mode, the
length limit and this project's own code for rows, so a file found is always the right one.
The first of several processes makes it; the others wait for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastchat
from fastchat.chat import ChatRenderer
from fastchat.data.item_file import ItemFile
from fastchat.errors import RequestError

logger = logging.getLogger(__name__)

_CODE = ("data", "chat.py", "conversation.py", "prompt_styles.py", "model/tokenization_yuan.py")


def cache_folder() -> Path:
    """Where tokenised data is kept: `$FASTCHAT_CACHE`, else `~/.cache/fastchat`."""
    chosen = os.environ.get("FASTCHAT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fastchat"


def cached_items(key: str, write: Callable[[Path], None], folder: Path | None = None) -> ItemFile:
    """The items under a key; made, if they are not there yet.

    Args:
        key: from `digest`.
        write: makes the file at the path it is given.
        folder: `cache_folder()` if None; a temporary one if it cannot be written to.
    """
    folder = _writable(cache_folder() if folder is None else folder)
    path = folder / f"{key}.arrow"
    if not path.exists():
        with _lock(folder / f"{key}.lock"):
            if not path.exists():
                write(path)
    logger.info("tokenised data is in %s", path)
    return ItemFile(path)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        other = Path(tempfile.gettempdir()) / f"fastchat-{os.getuid()}"
        other.mkdir(mode=0o700, exist_ok=True)
        logger.warning(
            "tokenised data cannot be kept in %s (%s); %s is used. Set FASTCHAT_CACHE.",
            folder,
            error.strerror or error,
            other,
        )
        return other


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it if this process dies
        yield


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
