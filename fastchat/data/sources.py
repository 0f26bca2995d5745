"""Several data files, each with the weight that says how often its samples are read; pure.

Knows nothing of what the files hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastchat.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Source:
    """A data file and its weight.

    Attributes:
        path: the file.
        weight: how often each sample is read in an epoch. 1 is once, 2.5 twice and for one
            half of the samples a third time, 0.3 not at all but for three in ten.
    """

    path: str
    weight: float = 1.0


def parse_sources(
    paths: Sequence[str] | str, weights: Sequence[float] | None = None
) -> list[Source]:
    """The files and their weights, in the order given.

    Args:
        paths: files; a string is one file.
        weights: one for each file; all 1 if there are none.

    Raises:
        SettingsError: there is no file, there are more or fewer weights than files, or a
            weight is not above zero.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths or not all(paths):
        raise SettingsError("No data file is given.", hint="Name one at least.")
    if not weights:
        return [Source(path) for path in paths]
    if len(weights) != len(paths):
        raise SettingsError(
            f"{len(paths)} data files have {len(weights)} weights.",
            hint="Give one weight for each file, in the same order, or none at all.",
        )
    for path, weight in zip(paths, weights, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise SettingsError(
                f"{path} has the weight {weight}; a number above zero is needed.",
                hint="1 reads each of its samples once, 2.5 two or three times, 0.3 three in ten.",
            )
    return [Source(path, float(weight)) for path, weight in zip(paths, weights, strict=True)]


def weighted_order(counts: Sequence[int], weights: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Which items are read in an epoch: each of a file as often as its weight says.

    Files keep their order. Each gives its items once over for every whole unit of its weight,
    and then those that a draw picks for the rest, in order; `round(weight * count)` in all.
    A file's draw depends on the seed and on its place, not on the other files.

    Args:
        counts: number of items of each file.
        weights: one for each, above zero.
        seed: of the draws, from 0 on.

    Returns:
        Indices (N,) of items; an item's index is its place in its file plus the number of
        items in the files before.
    """
    import numpy as np

    parts = [np.empty(0, np.int64)]
    offset = 0
    for place, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        everything = np.arange(offset, offset + count, dtype=np.int64)
        whole = math.floor(weight)
        extra = round(weight * count) - whole * count
        picked = np.zeros(count, np.bool_)
        picked[np.random.default_rng([seed, place]).permutation(count)[:extra]] = True
        parts += [np.tile(everything, whole), everything[picked]]
        offset += count
    return np.concatenate(parts)
