"""Ratings of models from battles between them. Pure functions.

Bradley-Terry: model i beats model j with probability 1 / (1 + exp(r_j - r_i)); a tie is half a win
for each. One tie against an average player is added for every model, so that one that has won (or
lost) everything gets a finite rating. Elo is updated battle by battle, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Winner = Literal["a", "b", "tie"]
Floats = NDArray[np.float64]

START = 1000.0
SCALE = 400.0 / math.log(10)
_ELO_STEP = 4.0
_MOST_STEPS = 100
_SCORES = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class Battle:
    """Two models answered, and somebody preferred one."""

    a: str
    b: str
    winner: Winner


@dataclass(frozen=True, slots=True)
class Rated:
    """A model's place.

    Attributes:
        rating: Bradley-Terry, on Elo's scale around 1000.
        low, high: its 95 % interval, from resampled battles.
        elo: after the last battle.
        battles: how many it fought.
        score: share of battles won; a tie is half of one.
    """

    model: str
    rating: float
    low: float
    high: float
    elo: float
    battles: int
    score: float


def models_of(battles: Sequence[Battle]) -> list[str]:
    """The models that fought, sorted by name."""
    return sorted({name for battle in battles for name in (battle.a, battle.b)})


def wins_of(battles: Sequence[Battle], models: Sequence[str]) -> Floats:
    """Wins of each model (row) over each other one (column), ties as halves: (M, M)."""
    place = {name: at for at, name in enumerate(models)}
    wins = np.zeros((len(models), len(models)))
    for battle in battles:
        a, b = place[battle.a], place[battle.b]
        wins[a, b] += _SCORES[battle.winner]
        wins[b, a] += 1 - _SCORES[battle.winner]
    return wins


def bradley_terry(wins: Floats) -> Floats:
    """Ratings on Elo's scale, (M,), that make the wins (M, M) likeliest."""
    games = wins + wins.T
    won = wins.sum(axis=1) + 0.5
    strength = np.zeros(len(wins))
    for _ in range(_MOST_STEPS):
        chance = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        average = 1 / (1 + np.exp(-strength))
        slope = won - (games * chance).sum(axis=1) - average
        if np.abs(slope).max(initial=0.0) < 1e-9:
            break
        weight = games * chance * (1 - chance)
        bend = np.diag(weight.sum(axis=1) + average * (1 - average)) - weight
        # Far from the top a whole step may overshoot; the likelihood has one top only.
        strength += np.clip(np.linalg.solve(bend, slope), -1.0, 1.0)
    return START + SCALE * strength


def elo(battles: Sequence[Battle], models: Sequence[str]) -> Floats:
    """Elo ratings after the battles, (M,)."""
    ratings = dict.fromkeys(models, START)
    for battle in battles:
        expected = 1 / (1 + math.exp((ratings[battle.b] - ratings[battle.a]) / SCALE))
        change = _ELO_STEP * (_SCORES[battle.winner] - expected)
        ratings[battle.a] += change
        ratings[battle.b] -= change
    return np.array([ratings[name] for name in models])


def intervals(
    battles: Sequence[Battle], models: Sequence[str], rounds: int, seed: int
) -> tuple[Floats, Floats]:
    """Where 95 % of the ratings of resampled battles lie: (M,) and (M,)."""
    kinds = sorted({(each.a, each.b, each.winner) for each in battles})
    place = {kind: at for at, kind in enumerate(kinds)}
    counts = np.bincount([place[each.a, each.b, each.winner] for each in battles])
    per_kind = np.stack([wins_of([Battle(*kind)], models) for kind in kinds])
    drawn = np.random.default_rng(seed).multinomial(
        len(battles), counts / counts.sum(), size=rounds
    )
    found = np.stack([bradley_terry(np.tensordot(row, per_kind, axes=1)) for row in drawn])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return low, high


def ranked(battles: Sequence[Battle], *, rounds: int = 100, seed: int = 0) -> list[Rated]:
    """All models, the best first.

    Args:
        battles: in the order in which they were fought; those of a model with itself are
            left out.
        rounds: how often battles are resampled for the intervals.
        seed: of the resampling.
    """
    battles = [battle for battle in battles if battle.a != battle.b]
    models = models_of(battles)
    if not models:
        return []
    wins = wins_of(battles, models)
    ratings, last = bradley_terry(wins), elo(battles, models)
    low, high = intervals(battles, models, rounds, seed)
    games = (wins + wins.T).sum(axis=1)
    rated = [
        Rated(
            name,
            float(ratings[at]),
            float(min(low[at], ratings[at])),
            float(max(high[at], ratings[at])),
            float(last[at]),
            int(games[at]),
            float(wins[at].sum() / games[at]),
        )
        for at, name in enumerate(models)
    ]
    return sorted(rated, key=lambda each: (-each.rating, each.model))
