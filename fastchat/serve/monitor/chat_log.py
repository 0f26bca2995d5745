"""The log of chats and votes: one JSON object a line in `$LOGDIR/YYYY-MM-DD-conv.json`.

Pure but for reading files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

VOTES = ("leftvote", "rightvote", "tievote", "bothbad_vote")
"""Types of entries that compare two models."""


def log_files(folder: Path, most: int | None = None) -> list[Path]:
    """The logs of a folder, oldest first; only the newest `most` of them, if told."""
    files = sorted(folder.glob("[0-9]*-conv.json"))
    return files if most is None else files[-most:]


def entries(files: list[Path]) -> Iterator[Entry]:
    """The entries of logs; lines that are no JSON object are passed over, as half a line is."""
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and "type" in entry:
                    yield entry
