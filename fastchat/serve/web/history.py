"""Conversations kept in an SQLite file, each for its owner.

Safe to use from several threads. Knows no page; an owner is any string.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastchat.errors import DataError
from fastchat.serve.web.migrations import migrate
from fastchat.serve.web.thread import Message, Role, Thread

_BUSY_S = 10.0
_MOST_LISTED = 200


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list."""

    id: str
    title: str
    updated: float


class History:
    """A file of conversations.

    Args:
        path: made if it is not there; `":memory:"` keeps nothing.

    Raises:
        DataError: the file cannot be opened, is no database, or is of a newer release.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        try:
            if str(path) != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
            self._db.isolation_level = None
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            migrate(self._db)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"The history file {path} cannot be used: {error}.") from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def save(
        self, owner: str, thread: Thread, *, now: float, changed: Iterable[str] | None = None
    ) -> None:
        """Stores a conversation as it is.

        Args:
            owner: whose it is; a conversation never changes hands.
            thread: the conversation.
            now: seconds since the epoch.
            changed: ids of the messages that are new or were changed; None is all of them.
        """
        positions = {message.id: at for at, message in enumerate(thread.all_messages)}
        wanted = positions if changed is None else changed
        rows = [_row(thread.id, positions[each], thread[each]) for each in wanted]
        with self._transaction() as db:
            saved = db.execute(
                """
                INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET title = excluded.title, system = excluded.system,
                    model = excluded.model, leaf = excluded.leaf, updated = excluded.updated
                WHERE owner = excluded.owner
                """,
                (
                    thread.id,
                    owner,
                    thread.title,
                    thread.system,
                    thread.model,
                    thread.leaf,
                    thread.created,
                    now,
                ),
            )
            if saved.rowcount == 0:
                raise _unknown(thread.id)
            db.executemany(
                """
                INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (conversation, id) DO UPDATE SET text = excluded.text,
                    model = excluded.model, stats = excluded.stats
                """,
                rows,
            )

    def load(self, owner: str, thread_id: str) -> Thread:
        """A conversation.

        Raises:
            DataError: the owner has no such conversation.
        """
        with self._lock:
            head = self._db.execute(
                """
                SELECT title, system, model, created, leaf FROM conversations
                WHERE id = ? AND owner = ?
                """,
                (thread_id, owner),
            ).fetchone()
            if head is None:
                raise _unknown(thread_id)
            rows = self._db.execute(
                """
                SELECT id, parent, role, text, model, stats, created FROM messages
                WHERE conversation = ? ORDER BY position, created
                """,
                (thread_id,),
            ).fetchall()
        title, system, model, created, leaf = head
        return Thread(
            thread_id,
            title=title,
            system=system,
            model=model,
            created=created,
            messages=[_message(*row) for row in rows],
            leaf=leaf,
        )

    def list(self, owner: str, search: str = "") -> list[Summary]:
        """An owner's conversations, the one used last first.

        Args:
            owner: whose.
            search: a text that has to be in the title or in a message, in any case.
        """
        pattern = "%" + search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        with self._lock:
            rows = self._db.execute(
                r"""
                SELECT id, title, updated FROM conversations
                WHERE owner = :owner AND (:search = '' OR title LIKE :pattern ESCAPE '\' OR EXISTS (
                    SELECT 1 FROM messages
                    WHERE conversation = conversations.id AND text LIKE :pattern ESCAPE '\'
                ))
                ORDER BY updated DESC, id LIMIT :most
                """,
                {"owner": owner, "search": search, "pattern": pattern, "most": _MOST_LISTED},
            ).fetchall()
        return [Summary(*row) for row in rows]

    def rename(self, owner: str, thread_id: str, title: str) -> None:
        """Gives a conversation another title.

        Raises:
            DataError: the owner has no such conversation.
        """
        self._change(
            "UPDATE conversations SET title = ? WHERE id = ? AND owner = ?", title, thread_id, owner
        )

    def delete(self, owner: str, thread_id: str) -> None:
        """Deletes a conversation with all of its messages.

        Raises:
            DataError: the owner has no such conversation.
        """
        self._change("DELETE FROM conversations WHERE id = ? AND owner = ?", thread_id, owner)

    def _change(self, statement: str, *values: str) -> None:
        with self._transaction() as db:
            if db.execute(statement, values).rowcount == 0:
                raise _unknown(values[-2])


def _row(thread_id: str, position: int, message: Message) -> tuple[object, ...]:
    return (
        thread_id,
        message.id,
        position,
        message.parent,
        message.role,
        message.text,
        message.model,
        json.dumps(message.stats, ensure_ascii=False),
        message.created,
    )


def _message(
    message_id: str,
    parent: str | None,
    role: Role,
    text: str,
    model: str,
    stats: str,
    created: float,
) -> Message:
    return Message(message_id, parent, role, text, model, json.loads(stats), created)


def _unknown(thread_id: str) -> DataError:
    return DataError(f"There is no conversation {thread_id!r} of yours.")
