"""One conversation as a tree of messages: versions of an answer, branches from any point.

Pure: ids and times come from the caller. Knows no database, no page and no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from fastchat.errors import DataError

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = ("user", "assistant")
_TITLE_LENGTH = 40


@dataclass(slots=True)
class Message:
    """A message and its place in the tree.

    Attributes:
        parent: id of the message before it; None for a first message.
        model: who wrote an answer.
        stats: figures about an answer, as JSON values.
        created: seconds since the epoch.
    """

    id: str
    parent: str | None
    role: Role
    text: str
    model: str = ""
    stats: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0


class Thread:
    """A conversation: all messages that were ever sent in it, and where one is right now.

    Attributes:
        leaf: id of the last message that is shown; None shows an empty conversation.
    """

    def __init__(
        self,
        thread_id: str,
        *,
        title: str = "",
        system: str = "",
        model: str = "",
        created: float = 0.0,
        messages: Iterable[Message] = (),
        leaf: str | None = None,
    ) -> None:
        """Builds a conversation.

        Raises:
            DataError: a message names a parent that does not come before it, a message comes
                twice, or `leaf` is none of them.
        """
        self.id = thread_id
        self.title = title
        self.system = system
        self.model = model
        self.created = created
        self.leaf: str | None = None
        self._messages: dict[str, Message] = {}
        self._children: dict[str | None, list[str]] = {}
        for message in messages:
            self._insert(message)
        self.go_to(leaf)

    @property
    def all_messages(self) -> list[Message]:
        """Every message, in the order in which they were added."""
        return list(self._messages.values())

    def __getitem__(self, message_id: str) -> Message:
        return self._messages[message_id]

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def path(self) -> list[Message]:
        """The messages from the first to the leaf."""
        found = []
        at = self.leaf
        while at is not None:
            message = self._messages[at]
            found.append(message)
            at = message.parent
        return found[::-1]

    def add(self, message: Message) -> Message:
        """Adds a message and goes to it.

        Raises:
            DataError: see `__init__`.
        """
        self._insert(message)
        self.leaf = message.id
        if not self.title and message.role == "user":
            self.title = title_of(message.text)
        return message

    def go_to(self, message_id: str | None) -> None:
        """Makes a message the last one shown; what is sent next becomes a branch from there.

        Raises:
            DataError: there is no such message.
        """
        if message_id is not None and message_id not in self._messages:
            raise DataError(f"The conversation has no message {message_id!r}.")
        self.leaf = message_id

    def versions(self, message_id: str) -> list[Message]:
        """The messages that stand in the same place, in the order in which they came to be."""
        siblings = self._children[self._messages[message_id].parent]
        return [self._messages[each] for each in siblings]

    def choose(self, message_id: str) -> None:
        """Goes to a version, and on to what was said last after it."""
        self.go_to(message_id)
        while self.leaf in self._children:
            self.leaf = self._children[self.leaf][-1]

    def step(self, message_id: str, by: int) -> None:
        """Chooses the version that lies `by` versions on, if there is one."""
        ids = [message.id for message in self.versions(message_id)]
        there = ids.index(message_id) + by
        if 0 <= there < len(ids):
            self.choose(ids[there])

    def take_back(self) -> Message | None:
        """Goes back to before the last question. Returns the question; None if there is none.

        Nothing is lost: the question and its answers stay in the tree.
        """
        for message in reversed(self.path):
            if message.role == "user":
                self.leaf = message.parent
                return message
        return None

    def prompt(self) -> list[dict[str, str]]:
        """What a model is sent: the system text and the path, as OpenAI messages.

        An answer without text, as a failure leaves behind, is left out with its question.
        """
        messages = []
        if self.system.strip():
            messages.append({"role": "system", "content": self.system})
        path = self.path
        for at, message in enumerate(path):
            answer = path[at + 1] if at + 1 < len(path) else None
            empty = message.role == "assistant" and not message.text
            if empty or (answer is not None and not answer.text and message.role == "user"):
                continue
            messages.append({"role": message.role, "content": message.text})
        return messages

    def _insert(self, message: Message) -> None:
        if message.id in self._messages:
            raise DataError(f"The conversation has two messages with the id {message.id!r}.")
        if message.parent is not None and message.parent not in self._messages:
            raise DataError(
                f"Message {message.id!r} follows {message.parent!r}, which does not come before it."
            )
        self._messages[message.id] = message
        self._children.setdefault(message.parent, []).append(message.id)


def title_of(text: str) -> str:
    """A title for a conversation that starts with this text: its first line, cut short."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
