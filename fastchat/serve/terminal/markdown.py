"""Markdown that is rendered while it grows: what is complete is printed for good.

Only the last block is drawn again and again, so that an answer may be longer than the screen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_REFRESHES_PER_S = 12


def settled(text: str) -> int:
    """How many of the first characters form blocks that what follows cannot change.

    A block ends with an empty line, unless that is inside a fence of code or the line after it
    is indented or has not begun.
    """
    end, place = 0, 0
    fence: str | None = None
    blank = False
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence is None and blank and line.strip() and not line.startswith((" ", "\t")):
            end = place
        if found and fence is None:
            fence = found[1]
        elif found and fence is not None and _closes(line, fence):
            fence = None
        blank = fence is None and not line.strip()
        place += len(line)
    return end


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


class _Tail:
    """The last lines of a block, as many as fit on the screen."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.markdown import Markdown
        from rich.segment import Segment

        lines = console.render_lines(Markdown(self.text), options, pad=False)
        for line in lines[-max(1, console.height - 2) :]:
            yield from line
            yield Segment.line()


class GrowingMarkdown:
    """Shows one answer in a console.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._text = ""
        self._live: Live = Live(
            console=console, refresh_per_second=_REFRESHES_PER_S, vertical_overflow="visible"
        )
        self._live.start()

    def write(self, text: str) -> None:
        """Takes more of the answer."""
        from rich.markdown import Markdown

        self._text += text
        end = settled(self._text)
        if end:
            self._live.console.print(Markdown(self._text[:end]))
            self._text = self._text[end:]
        self._live.update(_Tail(self._text))

    def end(self) -> None:
        """The answer is complete: the last block is printed for good."""
        from rich.markdown import Markdown

        self._live.transient = True
        self._live.stop()
        if self._text.strip():
            self._console.print(Markdown(self._text))
