"""What has been said so far, and what may be done with it. Knows no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastchat.conversation import Conversation
from fastchat.errors import DataError


class Dialogue:
    """A conversation between a person and the model.

    Args:
        template: the model's conversation template; messages it brings along are kept out
            of what is sent and shown.
        system_message: replaces the template's own; None keeps it.
    """

    def __init__(self, template: Conversation, system_message: str | None = None) -> None:
        self._template = template.copy()
        if system_message is not None:
            self._template.set_system_message(system_message)
        self.conversation = self._template.copy()

    @property
    def roles(self) -> tuple[str, str]:
        """How the person and the model are called."""
        user, assistant = self.conversation.roles
        return user or "user", assistant or "assistant"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The dialogue as OpenAI messages."""
        return self.conversation.to_openai_api_messages()

    def ask(self, question: str) -> None:
        """Adds a question."""
        self.conversation.append_message(self.conversation.roles[0], question)

    def answered(self, answer: str) -> None:
        """Adds the answer to the last question."""
        self.conversation.append_message(self.conversation.roles[1], answer)

    def reset(self) -> None:
        """Starts anew."""
        self.conversation = self._template.copy()

    def take_back(self) -> str | None:
        """Removes the last question and its answer.

        Returns:
            The question; None if nothing has been asked yet.
        """
        turns = self.conversation.messages
        said = len(turns) - self.conversation.offset
        if said <= 0:
            return None
        start = len(turns) - (2 if said % 2 == 0 else 1)
        question = turns[start][1]
        del turns[start:]
        return question

    def save(self, name: str) -> Path:
        """Writes the dialogue to a JSON file and tells its path."""
        path = _path(name)
        text = json.dumps(self.conversation.dict(), ensure_ascii=False, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    def load(self, name: str) -> Path:
        """Goes on with a dialogue that was saved and tells the file's path.

        Raises:
            DataError: the file cannot be read, or holds something else.
        """
        path = _path(name)
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            turns = saved["messages"][int(saved.get("offset", 0)) :]
            texts = [_text(text) for _, text in turns]
            system = _text(saved["system_message"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} does not hold a saved dialogue: {error}.") from error
        self.reset()
        self.conversation.set_system_message(system)
        for number, text in enumerate(texts):
            self.conversation.append_message(self.conversation.roles[number % 2], text)
        return path


def _path(name: str) -> Path:
    return Path(name if "." in Path(name).name else name + ".json")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.50} is not a text")
    return value
