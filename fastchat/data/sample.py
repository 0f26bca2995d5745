"""A conversation that has been read and checked.

Knows nothing of files, tokenizers or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": str}`, as the chat renderers take it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation.

    Attributes:
        id: the sample's own id, or its place in the file ("#7") where it has none.
        messages: perhaps a system message, then questions and answers in turn, the last
            of them an answer; empty where the conversation holds no answer.
        leading_dropped: whether a turn before the first question was left out.
        trailing_dropped: whether a last question without an answer was left out.
    """

    id: str
    messages: tuple[Message, ...]
    leading_dropped: bool = False
    trailing_dropped: bool = False

    @property
    def first_question(self) -> int:
        """Index of the first question in `messages`: 1 behind a system message, else 0."""
        return 1 if self.messages and self.messages[0]["role"] == "system" else 0

    @property
    def answers(self) -> range:
        """Indices of the answers in `messages`."""
        return range(self.first_question + 1, len(self.messages), 2)


if __name__ == "__main__":  # the tool's name in FastChat, and this module's in here
    import sys

    from fastchat.data.sampling import main

    sys.exit(main())
