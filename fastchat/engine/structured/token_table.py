"""What each token adds to the text that the user sees, as bytes.

A SentencePiece answer loses the space that its first piece begins with. That first place is
told apart by further tokens behind the vocabulary: each stands for a piece without its leading
space, so a grammar sees exactly the visible text. Shapes: V vocabulary, W words of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastchat.engine.structured.pieces import Pieces


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one vocabulary, and those of an answer's first place behind them.

    Attributes:
        pieces: bytes of the vocabulary's tokens.
        end_ids: tokens that end an answer.
    """

    pieces: Pieces
    end_ids: Sequence[int]
    _first_ids: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        spaced = [
            token
            for token, text in enumerate(self.pieces.texts)
            if self.pieces.drops_space and len(text) > 1 and text.startswith(b" ")
        ]
        object.__setattr__(self, "_first_ids", np.array(spaced, np.int64))

    @property
    def size(self) -> int:
        """V."""
        return len(self.pieces.texts)

    @cached_property
    def words(self) -> int:
        """W."""
        return -(-self.size // 32)

    @cached_property
    def all_words(self) -> int:
        """Words of a mask that has the further tokens too."""
        return -(-len(self.texts) // 32)

    @cached_property
    def texts(self) -> list[bytes]:
        """Bytes of all tokens, the further ones included."""
        return [*self.pieces.texts, *(self.pieces.texts[i][1:] for i in self._first_ids)]

    @cached_property
    def first_places(self) -> dict[int, int | None]:
        """What tokens count as where an answer begins; None is nothing at all."""
        places: dict[int, int | None] = {
            token: self.size + index for index, token in enumerate(self._first_ids.tolist())
        }
        return places | dict.fromkeys(self._blanks)

    @cached_property
    def spoken(self) -> NDArray[np.int32]:
        """(W,) mask of all tokens that have a text, and of those that end an answer."""
        bits = np.ones(self.size, np.uint8)
        bits[list(self.pieces.silent)] = 0
        bits[list(self.end_ids)] = 1
        return self._packed(bits)

    @cached_property
    def ends(self) -> NDArray[np.int32]:
        """(W,) mask of the tokens that end an answer."""
        bits = np.zeros(self.size, np.uint8)
        bits[list(self.end_ids)] = 1
        return self._packed(bits)

    def first_mask(self, mask: NDArray[np.int32]) -> NDArray[np.int32]:
        """(W,) mask for an answer's first place, from one that has the further tokens."""
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(self.texts)]
        further = bits[self.size :]
        # Where only one text can follow, llguidance allows one token for it, and not the same
        # text with a space that will not be seen.
        further |= bits[self._twins]
        own = bits[: self.size].copy()
        own[self._first_ids] = further
        own[self._blanks] = 1
        return self._packed(own)

    @cached_property
    def _blanks(self) -> list[int]:
        """Tokens that are a space and nothing else, which an answer's first place loses."""
        if not self.pieces.drops_space:
            return []
        return [
            token
            for token, text in enumerate(self.pieces.texts)
            if text == b" " and token not in self.pieces.keeps_space
        ]

    @cached_property
    def _twins(self) -> NDArray[np.int64]:
        """For each further token one of the vocabulary with the same text, or itself."""
        known = {
            text: token
            for token, text in enumerate(self.pieces.texts)
            if token not in self.pieces.silent
        }
        further = self.texts[self.size :]
        twins = [known.get(text, self.size + index) for index, text in enumerate(further)]
        return np.array(twins, np.int64)

    def _packed(self, bits: NDArray[np.uint8]) -> NDArray[np.int32]:
        room = np.zeros(self.words * 32, np.uint8)
        room[: len(bits)] = bits
        return np.packbits(room, bitorder="little").view(np.int32)
