"""Ranks models by a file of battles: Bradley-Terry with intervals, Elo beside it.

python3 -m fastchat.serve.monitor.clean_battle_data --out-file clean_battle.json
python3 -m fastchat.serve.monitor.elo_analysis --clean-battle-file clean_battle.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.entry import run_entry
from fastchat.errors import DataError
from fastchat.flag_types import at_least_one

if TYPE_CHECKING:
    from fastchat.serve.web.ratings import Battle, Rated


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.monitor.elo_analysis", description="Ranks models by their battles."
    )
    add = found.add_argument
    add("--clean-battle-file", type=Path, default=Path("clean_battle.json"))
    add("--num-bootstrap", type=at_least_one, default=100, help="rounds for the intervals")
    add("--rating-system", choices=("bt", "elo"), default="bt", help="what orders the table")
    add("--exclude-tie", action="store_true", help="leave out ties")
    add("--exclude-models", nargs="+", default=[], help="leave out battles of these models")
    add("--seed", type=int, default=0, help="of the resampling")
    add("--json", action="store_true", help="one JSON object a model and line")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the ranking."""
    args = parser().parse_args(argv)

    from fastchat.serve.web.ratings import ranked

    battles = [
        battle
        for battle in _read(args.clean_battle_file)
        if not (args.exclude_tie and battle.winner == "tie")
        and not {battle.a, battle.b} & set(args.exclude_models)
    ]
    rated = ranked(battles, rounds=args.num_bootstrap, seed=args.seed)
    if args.rating_system == "elo":
        rated.sort(key=lambda each: (-each.elo, each.model))
    if args.json:
        for each in rated:
            print(json.dumps(asdict(each), ensure_ascii=False))
    else:
        print(table(rated))


def _read(path: Path) -> list[Battle]:
    from fastchat.serve.web.votes import rated_battles

    try:
        return rated_battles(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no cleaned battles: {error}.") from error


def table(rated: Sequence[Rated]) -> str:
    """The ranking as lines of text."""
    width = max([len(each.model) for each in rated], default=0)
    head = f"{'':>4}  {'model':<{width}}  rating  95 % interval   elo  votes  wins"
    return "\n".join(
        [
            head,
            *(
                f"{place:>4}  {each.model:<{width}}  {each.rating:6.0f}"
                f"  {each.low:6.0f} {each.high:6.0f}  {each.elo:4.0f}  {each.battles:5d}"
                f"  {each.score:4.0%}"
                for place, each in enumerate(rated, start=1)
            ),
        ]
    )


if __name__ == "__main__":
    run_entry(main)
