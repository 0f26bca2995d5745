"""How a chat looks in a terminal: plain, with Markdown, or for another program."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastchat.serve.terminal.markdown import GrowingMarkdown

END_OF_MESSAGE = " __END_OF_A_MESSAGE_47582648__\n"
"""What ends an input in the programmatic style."""


class ChatStyle(Protocol):
    """Asks a person and shows answers as they grow."""

    def ask(self, role: str) -> str | None:
        """The next input; None if there is no more."""
        ...

    def begin(self, role: str) -> None:
        """An answer starts."""
        ...

    def write(self, text: str) -> None:
        """An answer goes on."""
        ...

    def end(self) -> None:
        """An answer is complete, or was stopped."""
        ...

    def say(self, text: str) -> None:
        """A remark of the program itself."""
        ...


class PlainStyle:
    """Text and nothing else.

    Args:
        named: whether the speakers' names are shown, which a pipe has no use for.
        multiline: an input ends with an empty line.
    """

    def __init__(self, *, named: bool = True, multiline: bool = False) -> None:
        self._named = named
        self._multiline = multiline

    def ask(self, role: str) -> str | None:
        """See `ChatStyle.ask`."""
        lines: list[str] = []
        while True:
            try:
                line = input(f"{role}: " if self._named and not lines else "")
            except EOFError:
                return "\n".join(lines) if lines else None
            if not self._multiline or (not line and lines):
                return "\n".join([*lines, line]).rstrip("\n")
            if not line:
                return ""
            lines.append(line)

    def begin(self, role: str) -> None:
        """See `ChatStyle.begin`."""
        if self._named:
            self.write(f"{role}: ")

    def write(self, text: str) -> None:
        """See `ChatStyle.write`."""
        print(text, end="", flush=True)

    def end(self) -> None:
        """See `ChatStyle.end`."""
        print(flush=True)

    def say(self, text: str) -> None:
        """See `ChatStyle.say`."""
        print(text, file=sys.stderr, flush=True)


class ProgrammaticStyle(PlainStyle):
    """For a program at the other end: marked lines, and inputs with an explicit end."""

    def ask(self, role: str) -> str | None:
        """See `ChatStyle.ask`."""
        self.begin(role)
        text = ""
        for line in sys.stdin:
            text += line
            if text.endswith(END_OF_MESSAGE):
                return text.removesuffix(END_OF_MESSAGE)
        return text or None

    def begin(self, role: str) -> None:
        """See `ChatStyle.begin`."""
        print(f"[!OP:{role}]: ", end="", flush=True)


class RichStyle:
    """Markdown that is rendered while it grows, and an input line with history.

    Args:
        commands: completed as they are typed.
        multiline: Enter makes a new line, and Esc Enter ends the input. Otherwise Enter ends
            it, and Esc Enter makes a new line.
        mouse: the mouse works in the input line.
        history: a file that keeps what was typed; None keeps it for this chat only.
    """

    def __init__(
        self,
        commands: Iterable[str],
        *,
        multiline: bool = False,
        mouse: bool = False,
        history: Path | None = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
        from rich.console import Console

        keys = KeyBindings()

        if not multiline:

            @keys.add("escape", "enter")
            def _(event: KeyPressEvent) -> None:
                event.current_buffer.insert_text("\n")

        if history is not None:
            history.parent.mkdir(parents=True, exist_ok=True)
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory() if history is None else FileHistory(str(history)),
            auto_suggest=AutoSuggestFromHistory(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=True,
            key_bindings=keys,
            multiline=multiline,
            mouse_support=mouse,
        )
        self._console = Console()
        self._growing: GrowingMarkdown | None = None

    def ask(self, role: str) -> str | None:
        """See `ChatStyle.ask`. Ctrl-C empties the line, as in a shell."""
        self._console.print(f"[bold]{role}:")
        while True:
            try:
                return self._session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

    def begin(self, role: str) -> None:
        """See `ChatStyle.begin`."""
        from fastchat.serve.terminal.markdown import GrowingMarkdown

        self._console.print(f"[bold]{role}:")
        self._growing = GrowingMarkdown(self._console)

    def write(self, text: str) -> None:
        """See `ChatStyle.write`."""
        if self._growing is not None:
            self._growing.write(text)

    def end(self) -> None:
        """See `ChatStyle.end`."""
        if self._growing is not None:
            self._growing.end()
            self._growing = None
        self._console.print()

    def say(self, text: str) -> None:
        """See `ChatStyle.say`."""
        self._console.print(text, style="dim", markup=False, highlight=False)
