"""Finds calls in an answer while it grows. Pure.

What looks like a call but is none is given out as the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from fastchat.protocol.openai_requests import random_id
from fastchat.serve.openai.tool_grammar import CLOSE, OPEN

_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_LONGEST_HEAD = 400


@dataclass(frozen=True, slots=True)
class CallNews:
    """What is new of one call.

    Attributes:
        position: of the call among those of its answer.
        arguments: further text of its arguments.
        call_id, name: on the first news of a call, and only there.
    """

    position: int
    arguments: str = ""
    call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerNews:
    """Further text of an answer, and news of its calls."""

    text: str = ""
    calls: tuple[CallNews, ...] = ()


class CallReader:
    """Reads one answer.

    Args:
        names: functions that there are; a call of another one is only text.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._rest = ""
        self._step = self._in_text
        self._text: list[str] = []
        self._news: list[CallNews] = []
        self._calls = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def calls(self) -> int:
        """Calls that have begun."""
        return self._calls

    def feed(self, text: str, *, last: bool = False) -> AnswerNews:
        """What a further piece of the answer holds; all of the rest if it is the last one."""
        self._rest += text
        while self._step():
            pass
        if last and self._step == self._in_head:
            self._text.append(OPEN)
        if last and self._step in (self._in_text, self._in_head):
            self._text.append(self._rest)
            self._rest = ""
        found = AnswerNews(self._tidy("".join(self._text)), tuple(self._news))
        self._text, self._news = [], []
        return found

    def _tidy(self, text: str) -> str:
        # The line breaks around calls are no part of the answer.
        return "" if self._calls and not text.strip() else text

    def _in_text(self) -> bool:
        before, found, after = self._rest.partition(OPEN)
        if found:
            self._text.append(before if before.strip() else "")
            self._rest, self._step = after, self._in_head
            return True
        held = next(
            (size for size in range(len(OPEN) - 1, 0, -1) if before.endswith(OPEN[:size])), 0
        )
        if not before[: len(before) - held].strip():
            return False  # white space alone may stand before a call: it waits
        self._text.append(before[: len(before) - held])
        self._rest = before[len(before) - held :]
        return False

    def _in_head(self) -> bool:
        match = _HEAD.match(self._rest)
        if match and match[1] in self._names:
            self._news.append(CallNews(self._calls, "", random_id("call_"), match[1]))
            self._calls += 1
            self._rest, self._step = self._rest[match.end() :], self._in_arguments
            self._depth, self._in_string, self._escaped = 0, False, False
            return True
        if match or CLOSE in self._rest or len(self._rest) > _LONGEST_HEAD:
            self._text.append(OPEN)
            self._step = self._in_text
            return True
        return False

    def _in_arguments(self) -> bool:
        for at, character in enumerate(self._rest):
            if self._ends_with(character):
                self._tell_arguments(at + 1)
                self._step = self._in_tail
                return True
        self._tell_arguments(len(self._rest))
        return False

    def _ends_with(self, character: str) -> bool:
        """Takes one character of JSON in. Returns whether the arguments are complete."""
        if self._in_string:
            self._in_string = character != '"' or self._escaped
            self._escaped = character == "\\" and not self._escaped
            return False
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            return self._depth == 0
        return False

    def _tell_arguments(self, size: int) -> None:
        if size:
            self._news.append(CallNews(self._calls - 1, self._rest[:size]))
            self._rest = self._rest[size:]

    def _in_tail(self) -> bool:
        _, found, after = self._rest.partition(CLOSE)
        if found:
            self._rest, self._step = after, self._in_text
        return bool(found)
