"""Names for the beginnings of a request, by which a controller sends it where they are known.

Pure. A name tells nothing of the text, and two requests share one only if they begin alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_MOST = 64
_CHARACTERS = 512
_TOKENS = 128


def prefixes_of_messages(messages: Sequence[dict[str, str]], salt: str = "") -> list[str]:
    """One name for each leading run of messages, the shortest first; those of late if many."""
    return _chain((f"{m['role']}\0{m['content']}" for m in messages), salt)


def prefixes_of_prompt(prompt: str | Sequence[int], salt: str = "") -> list[str]:
    """One name for each leading run of whole blocks of a prompt."""
    size = _CHARACTERS if isinstance(prompt, str) else _TOKENS
    whole = len(prompt) // size
    return _chain((str(prompt[n * size : (n + 1) * size]) for n in range(whole)), salt)


def _chain(parts: Iterable[str], salt: str) -> list[str]:
    names: list[str] = []
    state = hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=12)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        state.update(len(encoded).to_bytes(8, "little") + encoded)
        names.append(state.copy().hexdigest())
    return names[-_MOST:]
