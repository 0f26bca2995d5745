"""What a worker serves: an engine together with the text side of its model.

Knows nothing of HTTP. Imports no torch; `fastchat.engine.loading` builds the real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastchat.chat import ChatRenderer
from fastchat.conversation import Conversation
from fastchat.engine.base import Engine


class TextCodec(Protocol):
    """Text to token ids and back."""

    def encode_ids(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of a text; special tokens in it are parsed unless told otherwise."""
        ...

    def decode_ids(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One loaded model, ready to be asked.

    Attributes:
        path: where it was loaded from.
        engine: generates.
        codec: its tokenizer.
        chat: its chat template.
        conversation: the template that upstream's clients are told.
        stop_token_ids: the model's own end tokens.
        defaults: sampling values that a request leaves out, by the worker's field names:
            the flags' values over those of generation_config.json.
    """

    path: str
    engine: Engine
    codec: TextCodec
    chat: ChatRenderer
    conversation: Conversation
    stop_token_ids: tuple[int, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
