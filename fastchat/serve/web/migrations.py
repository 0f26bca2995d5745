"""The history's tables, as the numbered steps that lead to them.

A step is never changed once it has been released; the number of steps that a file has taken is
its `user_version`.
"""

from __future__ import annotations

import sqlite3

from fastchat.errors import DataError

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        title TEXT NOT NULL,
        system TEXT NOT NULL,
        model TEXT NOT NULL,
        leaf TEXT,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
    CREATE TABLE messages (
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        id TEXT NOT NULL,
        position INTEGER NOT NULL,
        parent TEXT,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        model TEXT NOT NULL,
        stats TEXT NOT NULL,
        created REAL NOT NULL,
        PRIMARY KEY (conversation, id)
    );
    """,
    "CREATE INDEX conversations_of_owner ON conversations (owner, updated);",
)


def migrate(connection: sqlite3.Connection) -> None:
    """Takes the steps that a file has not taken yet, each wholly or not at all.

    Raises:
        DataError: the file was written by a newer release.
    """
    taken: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if taken > len(STEPS):
        raise DataError(
            f"The history file is of version {taken}; this release knows up to {len(STEPS)}.",
            hint="Use the release that wrote it, or name another file with --history-file.",
        )
    for number in range(taken, len(STEPS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {STEPS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
        )
