"""The JSON values of a file, one at a time: a list's items, JSON Lines, or a single value.

A file is read in pieces of about a megabyte, so its size does not matter, only its largest
value's. Knows nothing of what the values mean.

    for item in JsonValues(Path("chat.json")): ...
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fastchat.errors import DataError

logger = logging.getLogger(__name__)

LINE_SUFFIXES = (".jsonl", ".ndjson")
_PIECE = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\n\r]*")
_BREAK = re.compile(r"[ \t\n\r]*([,\]]?)[ \t\n\r]*")
# An error nearer to the end of what has been read may go away with the next piece: the longest
# token that can be cut in two, other than a string, is a `\ud83d\ude00`.
_CUT = 16


class JsonValues:
    """Iterates over the values of a file.

    JSON Lines are told by the suffix (`LINE_SUFFIXES`) or, under any other name, by holding
    one JSON value after the other.

    Args:
        path: the file.
        inner: whether the lists in a list that begins with a list are opened as well, with
            a warning.

    Attributes:
        alone: whether the value that was given last is all that the file holds, and no
            item of a list.

    Raises:
        DataError: while iterating: the file is missing, unreadable, not UTF-8 text, empty
            or not JSON.
    """

    def __init__(self, path: Path, *, inner: bool = True) -> None:
        self.alone = False
        self._path = path
        self._inner = inner

    def __iter__(self) -> Iterator[Any]:
        try:
            with self._path.open("rb") as file:
                text = _Text(self._path, file)
                if text.peek() is None:
                    raise DataError(
                        f"{self._path} is empty.",
                        hint="It has to hold at least one conversation.",
                    )
                yield from self._values(text)
        except FileNotFoundError:
            raise DataError(
                f"There is no data file {self._path}.", hint="Check the path that was given."
            ) from None
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror or error}.") from error

    def _values(self, text: _Text) -> Iterator[Any]:
        if self._path.suffix.lower() in LINE_SUFFIXES:
            return text.lines()
        if text.peek() == "[":
            return self._list(text)
        return self._sequence(text)

    def _sequence(self, text: _Text) -> Iterator[Any]:
        """Values one after the other, each on as many lines as it likes."""
        value = text.value()
        self.alone = text.peek() is None
        if not self.alone and not isinstance(value, dict):
            raise text.error("Extra data")
        yield value
        self.alone = False
        while text.peek() is not None:
            yield text.value()

    def _list(self, text: _Text) -> Iterator[Any]:
        text.skip()
        if text.peek() == "[" and self._inner:
            logger.warning(
                "%s: its list of samples is inside another list; reading the inner one", self._path
            )
            yield from self._nested(text)
        else:
            yield from text.items()
        if text.peek() is not None:
            raise text.error("Extra data")

    def _nested(self, text: _Text) -> Iterator[Any]:
        """The items of the lists in a list whose bracket has been read."""
        more = True
        while more:
            if text.peek() in ("]", None):
                raise text.error("Expecting value")
            if text.peek() != "[":
                line, column = text.place()
                raise DataError(
                    f"{self._path} holds lists and other values side by side in one list: "
                    f"line {line}, column {column} is no list.",
                    hint='Write [{"id": ..., "conversations": [...]}, ...].',
                )
            text.skip()
            yield from text.items()
            more = text.goes_on()


class _Text:
    """What has been read of a file and not been used yet.

    `_buffer[_at:]` is ahead; `_line` and `_column` (from 0) are where `_buffer` begins.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8-sig")(), translate=True
        )
        self._scan = json.JSONDecoder().raw_decode
        self._buffer = ""
        self._at = 0
        self._line = 0
        self._column = 0
        self._read = 0  # bytes
        self._ended = False
        self._more()

    def peek(self) -> str | None:
        """The next character that is no white space; None at the end of the file."""
        while True:
            self._at = _end(_SPACE, self._buffer, self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._ended:
                return None
            self._more()

    def skip(self) -> None:
        """Goes past one character."""
        self._at += 1

    def value(self) -> Any:
        """The JSON value that begins here; goes past it."""
        while True:
            try:
                value, end = self._scan(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self.error(error.msg, error.pos) from None
            except RecursionError:
                raise self.error("Brackets are nested too deeply") from None
            else:
                # `1` may be what has been read of `1.5e-3`.
                cut = type(value) in (int, float) and end > len(self._buffer) - _CUT
                if not cut or self._ended:
                    self._at = end
                    return value
            self._more()

    def items(self) -> Iterator[Any]:
        """The items of a list whose bracket has been read; goes past the list."""
        if self.peek() == "]":
            self.skip()
            return
        yield self.value()
        while self.goes_on():
            yield self.value()

    def goes_on(self) -> bool:
        """Goes past the comma (true) or the bracket (false) behind an item."""
        match = _BREAK.match(self._buffer, self._at)
        while match is not None and match.end() == len(self._buffer) and not self._ended:
            self._more()
            match = _BREAK.match(self._buffer, self._at)
        assert match is not None, "the pattern fits anything"
        if not match[1]:
            raise self.error("Expecting ',' delimiter", match.end())
        self._at = match.end()
        return match[1] == ","

    def lines(self) -> Iterator[Any]:
        """The value of each line that is not blank."""
        while True:
            end = self._buffer.find("\n", self._at)
            while end < 0 and not self._ended:
                known = len(self._buffer) - self._at
                self._more()
                end = self._buffer.find("\n", self._at + known)
            stop = len(self._buffer) if end < 0 else end
            line = self._buffer[self._at : stop]
            if line and not line.isspace():
                yield self._line_value(line)
            if end < 0:
                return
            self._at = end + 1

    def _line_value(self, line: str) -> Any:
        try:
            start = _end(_SPACE, line, 0)
            value, end = self._scan(line, start)
        except json.JSONDecodeError as error:
            raise self.error(error.msg, self._at + error.pos) from None
        except RecursionError:
            raise self.error("Brackets are nested too deeply", self._at) from None
        rest = _end(_SPACE, line, end)
        if rest < len(line):
            raise self.error("Extra data", self._at + rest)
        return value

    def error(self, what: str, position: int | None = None) -> DataError:
        """Says that the file is broken at a place in `_buffer`; here, if none is given."""
        line, column = self.place(position)
        return DataError(
            f"{self._path} is not valid JSON: {what} at line {line}, column {column}.",
            hint="A comma after the last item, a missing quote or a cut-off file are usual causes.",
        )

    def place(self, position: int | None = None) -> tuple[int, int]:
        """Line and column in the file, both from 1."""
        end = self._at if position is None else position
        lines = self._buffer.count("\n", 0, end)
        if lines:
            return self._line + lines + 1, end - self._buffer.rindex("\n", 0, end)
        return self._line + 1, self._column + end + 1

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        if error.msg.startswith("Unterminated string"):
            return True
        return error.pos > len(self._buffer) - _CUT

    def _more(self) -> None:
        """Forgets what has been used and reads on: as much again as is ahead, or a piece."""
        line, column = self.place()
        self._line, self._column = line - 1, column - 1
        ahead = self._buffer[self._at :]
        data = self._file.read(max(_PIECE, len(ahead)))
        self._read += len(data)
        self._ended = not data
        try:
            self._buffer = ahead + self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            start = self._read - len(error.object) + error.start
            raise DataError(
                f"{self._path} is not UTF-8 text (byte {start} cannot be read).",
                hint="JSON, JSON Lines and .parquet files are read; other encodings are not.",
            ) from None
        self._at = 0


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return start if match is None else match.end()
