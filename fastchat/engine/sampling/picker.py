"""What a step's rows ask of whatever picks their tokens, and what comes back.

There are two that pick: torch's operations on any device, and the compiled kernel on
processors. Both keep the same tokens and pick the same one for the same random number.
Shapes: R rows, V vocabulary, W words of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastchat.errors import FastChatError, GenerationError

Top = tuple[tuple[int, float], ...]

_ROWS_AT_ONCE = 64  # a copy of this many rows of a large vocabulary is tens of megabytes


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token of one row.

    Attributes:
        token: its id; -1 if there is none.
        logprob: its natural-log probability under the logits as the model gave them, if
            asked for.
        top: the most likely tokens and their log-probabilities, as many as asked for.
        error: why there is no token; other rows are not affected.
    """

    token: int
    logprob: float | None = None
    top: Top = ()
    error: FastChatError | None = None


class Status(IntEnum):
    """What became of a row."""

    FINE = 0
    NAN = 1
    INFINITE = 2
    NOTHING_LEFT = 3

    def error(self) -> FastChatError:
        """Says to the user what went wrong."""
        if self is Status.NOTHING_LEFT:
            return GenerationError(
                "No token is left to choose from: all are ruled out together.",
                hint="Loosen logit_bias, no_repeat_ngram, min_new_tokens or the grammar.",
            )
        return GenerationError(
            f"The model produced {'NaN' if self is Status.NAN else 'infinite'} logits.",
            hint="Its weights may be damaged, or too large for the chosen dtype.",
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """How each row is sampled. All arrays are (R,).

    Attributes:
        temperature: float32; 0 is greedy.
        top_p, min_p, penalty: float32, the last for tokens seen.
        top_k: int32; -1 is off.
        alternatives: int32; -1 asks for no log-probabilities.
        seeds: uint64.
    """

    temperature: NDArray[np.float32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    penalty: NDArray[np.float32]
    top_k: NDArray[np.int32]
    alternatives: NDArray[np.int32]
    seeds: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Entries:
    """Sparse values of all rows, one row's behind the other's.

    Attributes:
        starts: (R + 1,) int32, where each row's entries start.
        ids: int32, tokens.
        values: float32, one a token; None if the tokens are all there is to say.
    """

    starts: NDArray[np.int32]
    ids: NDArray[np.int32]
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """All that is asked of one call.

    Attributes:
        settings: of the rows.
        uniform: (R,) float64, a random number for each row.
        seen, shifted, banned: changes of logits; see `Edits`.
        masks: (masks, W) int32, a bit for each token that a grammar allows.
        mask_rows: (R,) int64, the mask of each row; -1 for none.
    """

    settings: Settings
    uniform: NDArray[np.float64]
    seen: Entries
    shifted: Entries
    banned: Entries
    masks: NDArray[np.int32]
    mask_rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Picks:
    """What was picked, by row.

    Attributes:
        tokens: ids; without meaning where the status is not FINE.
        statuses: values of `Status`.
        logprobs: of the tokens; without meaning in rows that asked for none.
        tops: the most likely tokens; empty in rows that asked for none.
    """

    tokens: list[int]
    statuses: list[int]
    logprobs: list[float]
    tops: list[Top]


class Picker(Protocol):
    """Picks one token for each row."""

    def pick(self, logits: Tensor, batch: Batch) -> Picks:
        """Picks from logits (R, V) float32, which are overwritten."""
        ...


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], alternatives: int
) -> list[tuple[float, Top]]:
    """Log-probabilities of given tokens and of the most likely ones at their places.

    Args:
        logits: (n, V), float32.
        tokens: n ids.
        alternatives: most likely tokens for each place.
    """
    found: list[tuple[float, Top]] = []
    for start in range(0, len(tokens), _ROWS_AT_ONCE):
        some = tokens[start : start + _ROWS_AT_ONCE]
        logprobs = logits[start : start + len(some)].log_softmax(dim=-1)
        chosen = torch.tensor(some, device=logits.device)[:, None]
        own = logprobs.gather(1, chosen)[:, 0].tolist()
        best = logprobs.topk(min(alternatives, logprobs.shape[1]), dim=-1)
        tops = (
            tuple(zip(ids, values, strict=True))
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        found += zip(own, tops, strict=True)
    return found
