"""From the votes of the logs to a file of battles, from which models are ranked.

python3 -m fastchat.serve.monitor.clean_battle_data --log-dir logs --out-file battles.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastchat.constants import LOGDIR
from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one
from fastchat.serve.monitor.chat_log import VOTES, Entry, entries, log_files

_WINNERS = dict(zip(VOTES, ("model_a", "model_b", "tie", "tie (bothbad)"), strict=True))


@dataclass(slots=True)
class Battles:
    """Battles in the order of their votes, and why other votes are none.

    Attributes:
        kept: each with model_a, model_b, winner, judge, turn, anony, language and tstamp.
        dropped: votes by the reason for which they do not count.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def battles(
    log: Iterable[Entry],
    *,
    excluded: Collection[str] = (),
    banned: Collection[str] = (),
    sanitize: bool = False,
) -> Battles:
    """The battles of a log.

    Args:
        log: its entries.
        excluded: models whose battles do not count.
        banned: addresses whose votes do not count.
        sanitize: tell voters apart by a number in place of a hash of their address.
    """
    found = Battles()
    voters: dict[str, int] = {}
    seen: set[str] = set()
    for entry in sorted(
        (each for each in log if each["type"] in _WINNERS), key=lambda each: each.get("tstamp", 0)
    ):
        reason = _reason_against(entry, excluded, banned, seen)
        if reason:
            found.dropped[reason] += 1
            continue
        ip = str(entry.get("ip", ""))
        number = voters.setdefault(ip, len(voters))
        voter = str(number) if sanitize else hashlib.sha256(ip.encode()).hexdigest()[:16]
        found.kept.append(_battle(entry, voter))
    return found


def _states(entry: Entry) -> list[dict[str, Any]]:
    states = entry.get("states")
    whole = isinstance(states, list) and all(isinstance(state, dict) for state in states)
    return states if whole and isinstance(states, list) else []


def _reason_against(
    entry: Entry, excluded: Collection[str], banned: Collection[str], seen: set[str]
) -> str:
    states = _states(entry)
    names = [str(state.get("model_name", "")) for state in states]
    if len(names) != 2 or not all(names):
        return "not two models"
    if names[0] == names[1]:
        return "a model against itself"
    if set(names) & set(excluded):
        return "excluded model"
    if str(entry.get("ip", "")) in banned:
        return "banned address"
    pair = "-".join(str(state.get("conv_id", "")) for state in states)
    if pair in seen:
        return "voted before"
    seen.add(pair)
    return ""


def _battle(entry: Entry, voter: str) -> dict[str, Any]:
    one, two = _states(entry)
    shown = entry.get("models") or ["", ""]
    said = len(one.get("messages", ())) - int(one.get("offset", 0))
    return {
        "model_a": one["model_name"],
        "model_b": two["model_name"],
        "winner": _WINNERS[entry["type"]],
        "judge": f"arena_user_{voter}",
        "turn": said // 2,
        "anony": not any(shown),
        "tstamp": entry.get("tstamp", 0),
    }


def parser() -> argparse.ArgumentParser:
    """The tool's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.monitor.clean_battle_data",
        description="Collects the votes of the logs as battles between two models.",
    )
    add = found.add_argument
    add("--max-num-files", type=at_least_one, help="only the newest logs")
    add("--mode", choices=("simple", "conv_release"), default="simple")
    add("--exclude-model-names", nargs="+", default=[])
    add("--ban-ip-file", type=Path, help="JSON list of addresses whose votes do not count")
    add("--sanitize-ip", action="store_true", help="tell voters apart by numbers")
    add("--log-dir", type=Path, default=Path(LOGDIR or "."))
    add("--out-file", type=Path, default=Path("clean_battle.json"))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the battles."""
    args = parser().parse_args(argv)
    if args.mode != "simple":
        raise SettingsError(
            "--mode conv_release would put people's chats into the file, which is not done here."
        )
    banned: list[str] = []
    if args.ban_ip_file:
        try:
            banned = json.loads(args.ban_ip_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"--ban-ip-file {args.ban_ip_file}: {error}") from error
    found = battles(
        entries(log_files(args.log_dir, args.max_num_files)),
        excluded=args.exclude_model_names,
        banned=banned,
        sanitize=args.sanitize_ip,
    )
    args.out_file.write_text(json.dumps(found.kept, ensure_ascii=False, indent=1), "utf-8")
    print(f"{len(found.kept)} battles in {args.out_file}")
    for reason, number in sorted(found.dropped.items()):
        print(f"{number} votes do not count: {reason}", file=sys.stderr)


if __name__ == "__main__":
    run_entry(main)
