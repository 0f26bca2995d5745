"""Text of a growing token sequence, piece by piece.

The pieces joined are exactly the decoded whole, and none ends in half a character.
Knows nothing of engines or of stop strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

SPACE = "▁"  # how SentencePiece writes a space
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream(Protocol):
    """Decodes ids as they arrive."""

    def push(self, ids: Iterable[int]) -> str:
        """Takes new ids; returns the text that is certain now, whole characters only."""
        ...

    def finish(self) -> str:
        """The rest of the decoded whole; a cut-off character becomes U+FFFD as in `decode`."""
        ...


class YuanTextStream:
    """Incremental `YuanTokenizer.decode_ids`.

    Args:
        tokenizer: a YuanTokenizer.
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(self, tokenizer: Any, *, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self._skip_special = skip_special_tokens
        self._bytes = bytearray()
        self._at_start = True  # of a run, where SentencePiece drops one leading space

    def push(self, ids: Iterable[int]) -> str:
        """See `TextStream.push`."""
        return "".join(self._push_one(token_id) for token_id in ids)

    def finish(self) -> str:
        """See `TextStream.finish`."""
        return self._end_bytes()

    def _push_one(self, token_id: int) -> str:
        if token_id in self._special:
            text = self._end_bytes()
            self._at_start = True
            return text if self._skip_special else text + self._special[token_id]
        pieces = self._tokenizer.sp_model
        if not 0 <= token_id < pieces.get_piece_size():
            return ""
        piece: str = pieces.id_to_piece(token_id)
        if self._tokenizer.is_byte_id(token_id):
            self._bytes.append(int(piece[1:-1], 16))
            text = self._whole_characters()
            self._at_start = self._at_start and not text
            return text
        text = self._end_bytes()
        self._at_start = self._at_start and not text
        if pieces.is_control(token_id):
            return text
        if self._at_start and piece.startswith(SPACE):
            piece = piece[len(SPACE) :]
            self._at_start = False
        self._at_start = self._at_start and not piece
        return text + piece.replace(SPACE, " ")

    def _whole_characters(self) -> str:
        """Takes what is certain out of the pending bytes; keeps the start of a character."""
        text = []
        while self._bytes:
            try:
                text.append(self._bytes.decode())
                self._bytes.clear()
            except UnicodeDecodeError as error:
                text.append(self._bytes[: error.start].decode())
                del self._bytes[: error.start]
                if error.reason == "unexpected end of data":
                    break
                text.append(REPLACEMENT)
                del self._bytes[:1]
        return "".join(text)

    def _end_bytes(self) -> str:
        text = self._whole_characters()
        while self._bytes:
            del self._bytes[:1]
            text += REPLACEMENT + self._whole_characters()
        return text


class GenericTextStream:
    """Incremental decoding for any transformers tokenizer, by decoding a growing window.

    Text is held back while its end may still change: while the window decodes to a
    trailing U+FFFD.
    """

    def __init__(self, tokenizer: Any, *, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special_tokens
        self._ids: list[int] = []
        self._anchor = 0  # ids before it are context only
        self._sent = 0  # ids before it are in the text sent so far

    def push(self, ids: Iterable[int]) -> str:
        """See `TextStream.push`."""
        self._ids += ids
        before, now = self._window()
        if now.endswith(REPLACEMENT) or len(now) <= len(before):
            return ""
        self._anchor, self._sent = self._sent, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """See `TextStream.finish`."""
        before, now = self._window()
        self._anchor = self._sent = len(self._ids)
        return now[len(before) :]

    def _window(self) -> tuple[str, str]:
        # A token's text can depend on the one before it, so the window keeps context.
        before, now = self._ids[self._anchor : self._sent], self._ids[self._anchor :]
        return self._decode(before), self._decode(now)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)
        return text
