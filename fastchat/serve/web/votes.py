"""The battles that the votes in FastChat's logs make, for ratings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastchat.serve.monitor.chat_log import VOTES, entries, log_files
from fastchat.serve.monitor.clean_battle_data import battles
from fastchat.serve.web.ratings import Battle, Winner

_WINNERS: Mapping[str, Winner] = {"model_a": "a", "model_b": "b"}

KINDS: Mapping[str, str] = dict(
    zip(("a_better", "b_better", "tie", "both_bad"), VOTES, strict=True)
)
"""The type of log line for each button of a comparison."""


def rated_battles(cleaned: Iterable[Mapping[str, Any]], *, named: bool = True) -> list[Battle]:
    """Cleaned battles as ratings take them.

    Args:
        cleaned: with model_a, model_b, winner and anony.
        named: whether those count in which the models' names were shown.
    """
    return [
        Battle(each["model_a"], each["model_b"], _WINNERS.get(each["winner"], "tie"))
        for each in cleaned
        if named or each.get("anony", True)
    ]


def battles_of(folder: Path | None, *, named: bool = False) -> list[Battle]:
    """All battles in the logs of a folder, in the order of their votes."""
    if folder is None:
        return []
    return rated_battles(battles(entries(log_files(folder))).kept, named=named)
