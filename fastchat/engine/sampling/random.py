"""Randomness by counting: the n-th number of a seed is the same whatever was drawn before.

Pure. A request's draws depend on its seed and on how many tokens it has, and on nothing
else: not on the requests beside it, nor on how often it was set back and resumed.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

WORD = (1 << 64) - 1


def fresh_seed() -> int:
    """A seed that nobody can guess, 64 bits."""
    return secrets.randbits(64)


def uniforms(seeds: NDArray[np.uint64], places: NDArray[np.uint64]) -> NDArray[np.float64]:
    """For each row the number of its seed at its place, in [0, 1), with 53 random bits."""
    bits = _mixed(_mixed(seeds) + places) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step (Steele, Lea and Flood 2014) from counters to 64 random bits each."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
