"""Follows one answer through its grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastchat.engine.structured.token_table import TokenTable
from fastchat.errors import GenerationError


class GrammarMatcher:
    """Says which tokens may follow in one answer.

    Args:
        table: the tokens.
        matcher: an LLMatcher that nobody else moves.
    """

    def __init__(self, table: TokenTable, matcher: Any) -> None:
        self._table = table
        self._matcher = matcher
        self._mask: NDArray[np.int32] | None = None
        self._first: NDArray[np.int32] | None = None
        self._at_start = True
        self._ended = False

    def copied(self) -> GrammarMatcher:
        """Another one at the same place, which shares what was found out about the grammar."""
        other = GrammarMatcher(self._table, self._matcher.deep_copy())
        other._first, other._at_start, other._ended = self._first, self._at_start, self._ended
        return other

    @property
    def words(self) -> int:
        """Words of 32 bits in a mask."""
        return self._table.words

    @property
    def complete(self) -> bool:
        """Whether nothing but an end token may follow."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def accept(self, token: int) -> bool:
        """Takes a token that joined the answer; returns whether the grammar allows it."""
        if token in self._table.end_ids:
            self._ended = True
            return True
        counted: int | None = token
        if self._at_start:
            counted = self._table.first_places.get(token, token)
            self._at_start = False
        if counted is None:
            return True
        # Tried first: a token that does not fit breaks an LLMatcher for good.
        return self._matcher.try_consume_tokens([counted]) == 1

    def fill(self, mask: NDArray[np.int32], assumed: Sequence[int] = ()) -> bool:
        """Writes which tokens may follow; returns whether only end tokens may.

        Args:
            mask: (W,), a bit for each token. All are set after assumed tokens that the
                grammar forbids: what follows those is never looked at.
            assumed: tokens taken to be accepted before.

        Raises:
            GenerationError: the grammar became too complex to follow.
        """
        if assumed:
            return self._filled_after(assumed, mask)
        if self.complete:
            mask[:] = self._table.ends
            return True
        np.bitwise_and(self._computed(), self._table.spoken, out=mask)
        return not (mask & ~self._table.ends).any()

    def _filled_after(self, assumed: Sequence[int], mask: NDArray[np.int32]) -> bool:
        other = self.copied()
        if all(other.accept(token) for token in assumed):
            return other.fill(mask)
        mask[:] = -1
        return False

    def _computed(self) -> NDArray[np.int32]:
        """(W,) mask of the place reached."""
        if self._at_start and self._first is not None:
            return self._first
        if self._mask is None:
            self._mask = np.zeros(self._table.all_words, np.int32)
        self._check()
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        if not self._at_start:
            return self._mask[: self._table.words]
        self._first = self._table.first_mask(self._mask)
        return self._first

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GenerationError(
                f"The answer cannot be kept in the form asked for: {self._matcher.get_error()}",
                hint="Simplify the schema or grammar.",
            )
