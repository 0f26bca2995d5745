"""The battles in FastChat's logs of chats and votes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastchat.serve.web.ratings import Battle, Winner

WINNERS: dict[str, Winner] = {
    "leftvote": "a",
    "rightvote": "b",
    "tievote": "tie",
    "bothbad_vote": "tie",
}


def battles_in(lines: Iterable[str], *, named: bool = False) -> Iterator[Battle]:
    """The battles that the lines of a log tell of.

    Lines of other kinds, and lines that are cut off or damaged, are passed over: a log is
    written while it is read.

    Args:
        lines: of one log after the other.
        named: also count votes of people who saw the models' names.
    """
    for line in lines:
        if '"states"' not in line:
            continue
        try:
            vote = json.loads(line)
            winner = WINNERS.get(vote["type"])
            a, b = (str(state["model_name"]) for state in vote["states"])
            shown = any(vote["models"])
        except (ValueError, KeyError, TypeError):
            continue
        if winner is not None and a and b and (named or not shown):
            yield Battle(a, b, winner)


def battles_of(folder: Path | None, *, named: bool = False) -> list[Battle]:
    """All battles in the logs of a folder, the oldest first."""
    if folder is None:
        return []
    found: list[Battle] = []
    for path in sorted(folder.glob("*-conv.json")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            found += battles_in(lines, named=named)
    return found


def vote_kind(choice: str) -> Any:
    """The kind of log line for a button's key."""
    return {"a_better": "leftvote", "b_better": "rightvote", "tie": "tievote"}.get(
        choice, "bothbad_vote"
    )
