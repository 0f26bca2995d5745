"""Question and answer in turn, with the commands in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fastchat.errors import FastChatError
from fastchat.serve.terminal.answering import Answered
from fastchat.serve.terminal.commands import COMMANDS
from fastchat.serve.terminal.dialogue import Dialogue
from fastchat.serve.terminal.styles import ChatStyle

Answering = Callable[[list[dict[str, str]], Callable[[str], None]], Answered]
"""From messages to an answer, handing out its text as it comes."""


@dataclass(slots=True)
class Chat:
    """A chat in a terminal.

    Attributes:
        answering: asks the model.
        keep_history: whether later answers know of earlier questions.
        forgiving: whether the chat goes on after an answer that failed.
        debug: whether each answer is followed by numbers about it.
    """

    dialogue: Dialogue
    style: ChatStyle
    answering: Answering
    keep_history: bool = True
    forgiving: bool = True
    debug: bool = False

    def run(self) -> None:
        """Goes on until the person ends it.

        Raises:
            FastChatError: an answer failed, and the chat is not `forgiving`.
        """
        while True:
            given = self.style.ask(self.dialogue.roles[0])
            if not given or given.strip() == "!!exit":
                return
            name, _, argument = given.strip().partition(" ")
            try:
                if name in COMMANDS:
                    self._obey(name, argument.strip())
                else:
                    self._turn(given)
            except (FastChatError, OSError) as error:
                if not self.forgiving:
                    raise
                self.style.say(f"error: {error}")

    def _turn(self, question: str) -> None:
        if not self.keep_history:
            self.dialogue.reset()
        self.dialogue.ask(question)
        started = time.perf_counter()
        self.style.begin(self.dialogue.roles[1])
        try:
            answered = self.answering(self.dialogue.messages, self.style.write)
        except FastChatError:
            self.dialogue.take_back()
            raise
        finally:
            self.style.end()
        self.dialogue.answered(answered.text.strip())
        if answered.stopped:
            self.style.say("(stopped)")
        if self.debug:
            seconds = time.perf_counter() - started
            self.style.say(f"{answered.tokens} tokens, {answered.tokens / seconds:.1f} per second")

    def _obey(self, name: str, argument: str) -> None:
        if name in ("!!save", "!!load"):
            self._file(name, argument)
        elif name == "!!reset":
            self.dialogue.reset()
            self.style.say("A new dialogue.")
        else:
            question = self.dialogue.take_back()
            if question is None:
                self.style.say("Nothing has been asked yet.")
            elif name == "!!regen":
                self._turn(question)
            else:
                self.style.say("The last question and its answer are taken back.")

    def _file(self, name: str, argument: str) -> None:
        if not argument:
            self.style.say(f"{name} needs the name of a file.")
        elif name == "!!save":
            self.style.say(f"Saved to {self.dialogue.save(argument)}.")
        else:
            self.style.say(f"Loaded from {self.dialogue.load(argument)}.")
            roles = {"user": self.dialogue.roles[0], "assistant": self.dialogue.roles[1]}
            for message in self.dialogue.messages:
                role = roles.get(message["role"], message["role"])
                self.style.say(f"{role}: {message['content']}")
