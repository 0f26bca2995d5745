"""Question and answer in turn, with the commands in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastchat.errors import FastChatError
from fastchat.serve.terminal.answering import Answered, figures
from fastchat.serve.terminal.commands import ACTIONS, COMMANDS
from fastchat.serve.terminal.dialogue import Dialogue
from fastchat.serve.terminal.sampling import Dials
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
        commands: those that are obeyed; anything else is a question.
        dials: what `/set` changes.
    """

    dialogue: Dialogue
    style: ChatStyle
    answering: Answering
    keep_history: bool = True
    forgiving: bool = True
    debug: bool = False
    commands: Mapping[str, str] = field(default_factory=lambda: COMMANDS)
    dials: Dials = field(default_factory=Dials)
    _failed: str | None = None

    def run(self) -> None:
        """Goes on until the person ends it.

        Raises:
            FastChatError: an answer failed, and the chat is not `forgiving`.
        """
        while True:
            given = self.style.ask(self.dialogue.roles[0])
            if not given:
                return
            name, _, argument = given.strip().partition(" ")
            action = ACTIONS[name] if name in self.commands else None
            if action == "exit":
                return
            try:
                if action is None:
                    self._turn(given)
                else:
                    self._obey(action, name, argument.strip())
            except (FastChatError, OSError) as error:
                if not self.forgiving:
                    raise
                self.style.say(f"error: {error}")

    def _turn(self, question: str) -> None:
        if not self.keep_history:
            self.dialogue.reset()
        self.dialogue.ask(question)
        self.style.begin(self.dialogue.roles[1])
        try:
            answered = self.answering(self.dialogue.messages, self.style.write)
        except FastChatError:
            self._failed = self.dialogue.take_back()
            raise
        finally:
            self.style.end()
        self._failed = None
        self.dialogue.answered(answered.text.strip())
        if answered.stopped:
            self.style.say("(stopped)")
        if self.debug:
            self.style.say(figures(answered) or f"{answered.tokens} tokens")

    def _obey(self, action: str, name: str, argument: str) -> None:
        if action in ("save", "load"):
            self._file(action, name, argument)
        elif action == "new":
            self.dialogue.reset()
            self.style.say("A new dialogue.")
        elif action == "help":
            width = max(map(len, self.commands))
            lines = [f"{each:<{width}}  {what}" for each, what in self.commands.items()]
            self.style.say("\n".join(lines))
        elif action == "set":
            if argument:
                self.dials.set(argument)
            self.style.say(self.dials.shown())
        elif action == "system":
            if argument:
                self.dialogue.conversation.set_system_message(argument)
            self.style.say(self.dialogue.conversation.system_message or "No system message.")
        else:
            self._take_back(action)

    def _take_back(self, action: str) -> None:
        if action == "retry" and self._failed is not None:
            self._turn(self._failed)
            return
        question = self.dialogue.take_back()
        if question is None:
            self.style.say("Nothing has been asked yet.")
        elif action == "retry":
            self._turn(question)
        else:
            self.style.say("The last question and its answer are taken back.")

    def _file(self, action: str, name: str, argument: str) -> None:
        if not argument:
            self.style.say(f"{name} needs the name of a file.")
        elif action == "save":
            self.style.say(f"Saved to {self.dialogue.save(argument)}.")
        else:
            self.style.say(f"Loaded from {self.dialogue.load(argument)}.")
            roles = {"user": self.dialogue.roles[0], "assistant": self.dialogue.roles[1]}
            for message in self.dialogue.messages:
                role = roles.get(message["role"], message["role"])
                self.style.say(f"{role}: {message['content']}")
