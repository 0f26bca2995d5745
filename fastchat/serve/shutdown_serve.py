"""Stops what `launch_all_serve` started.

python3 -m fastchat.serve.shutdown_serve --down all
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastchat.entry import run_entry
from fastchat.flag_types import at_least_one
from fastchat.serve.launching import Records

_KINDS = ("all", "controller", "model_worker", "openai_api_server")


def parser() -> argparse.ArgumentParser:
    """The flags of the end."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.shutdown_serve",
        description="Asks the recorded services to end, lets them finish what they do, and kills"
        " those that take too long.",
    )
    add = found.add_argument
    add("--down", choices=_KINDS, default="all", help="which of them")
    add("--log-dir", type=Path, default=Path("logs"), help="as given to launch_all_serve")
    add("--grace-seconds", type=at_least_one, default=70, help="before a service is killed")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Stops the services and tells which."""
    args = parser().parse_args(argv)
    records = Records(args.log_dir)
    chosen = [
        record for record in records.running() if args.down == "all" or args.down in record.module
    ]
    records.stop(chosen, args.grace_seconds)
    for record in chosen:
        print(f"{record.name}: process {record.pid} has ended")
    if not chosen:
        print("Nothing was running.")


if __name__ == "__main__":
    run_entry(main)
