"""Embeddings of texts that may be longer than the model's context. Pure but for `embed`."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from itertools import islice

from fastchat.engine.base import Engine

Vector = list[float]


async def embed(
    engine: Engine, rows: Sequence[Sequence[int]], *, truncate: bool
) -> tuple[list[Vector], int]:
    """One L2-normalised vector per row of token ids, and the tokens that were read.

    A row longer than the context is cut there if `truncate`; else it is embedded in parts,
    and its vector is the mean of theirs, weighted by their tokens.

    Raises:
        RequestError: an empty row.
    """
    context = engine.context_length
    parts_of_rows = [_parts(row, context, truncate=truncate) for row in rows]
    parts = [part for parts in parts_of_rows for part in parts]
    vectors = iter(await engine.embed(parts))
    joined = [
        _mean(list(islice(vectors, len(parts))), [len(part) for part in parts])
        for parts in parts_of_rows
    ]
    return joined, sum(map(len, parts))


def _parts(row: Sequence[int], size: int, *, truncate: bool) -> list[Sequence[int]]:
    if truncate or len(row) <= size:
        return [row[:size]]
    return [row[start : start + size] for start in range(0, len(row), size)]


def _mean(vectors: Sequence[Vector], weights: Sequence[int]) -> Vector:
    if len(vectors) == 1:
        return vectors[0]
    summed = [
        sum(w * value for w, value in zip(weights, values, strict=True))
        for values in zip(*vectors, strict=True)
    ]
    norm = math.sqrt(sum(value * value for value in summed)) or 1.0
    return [value / norm for value in summed]


def as_base64(vector: Vector) -> str:
    """A vector as little-endian float32 in base64, as OpenAI's clients read it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
