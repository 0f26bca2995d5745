"""Which tokens a text that has to follow is written with."""

from __future__ import annotations

from fastchat.engine.structured.pieces import Pieces
from fastchat.engine.structured.token_table import TokenTable


class Spelling:
    """Spells a text that has to follow, as the model's own tokenizer would."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._known = {
            text: token for token, text in enumerate(pieces.texts) if token not in pieces.silent
        }
        self._longest = max(map(len, self._known), default=0)

    def encode(self, text: bytes) -> list[int]:
        """Tokens whose bytes joined are exactly `text`, as far as there are such."""
        try:
            ids = self._pieces.encode(text.decode())
        except UnicodeDecodeError:  # the beginning of a character
            return self._greedy(text)
        spelled = b"".join(self._pieces.texts[i] for i in ids)
        sound = spelled == text and not self._pieces.silent.intersection(ids)
        return ids if sound else self._greedy(text)

    def _greedy(self, text: bytes) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(text):
            sizes = range(min(self._longest, len(text) - start), 0, -1)
            size = next((size for size in sizes if text[start : start + size] in self._known), 0)
            if not size:
                break
            ids.append(self._known[text[start : start + size]])
            start += size
        return ids


class WrappedTable:
    """A token table as llguidance reads it; names and forms are llguidance's."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, table: TokenTable) -> None:
        pieces = table.pieces
        self.eos_token_id = table.end_ids[0]
        self.tokens = table.texts
        self.special_token_ids = sorted({*pieces.silent, *table.end_ids})
        self._spelling = Spelling(pieces)

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text that has to follow."""
        return self._spelling.encode(text.encode() if isinstance(text, str) else text)
