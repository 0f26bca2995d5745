"""Reads ShareGPT conversations from JSON and JSONL files and checks them.

    [{"id": "1", "conversations": [{"from": "human", "value": "Hi"},
                                   {"from": "gpt", "value": "Hello!"}]}]

A sample may hold a system text, as `"system": "..."` or as a first turn from "system".
A turn before the first question and a last question without an answer are left out.
Every error names the file, the sample and the turn. Knows nothing of tokenizers.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from fastchat.data.sample import Message, Sample
from fastchat.errors import DataError

logger = logging.getLogger(__name__)

_LINE_SUFFIXES = (".jsonl", ".ndjson")
_ROLES = {"human": "user", "gpt": "assistant"}


def read_samples(path: str | Path) -> list[Sample]:
    """Reads a file of conversations, in the file's order.

    JSONL is told by the suffix (`.jsonl`, `.ndjson`) or, under any other name, by holding
    more than one JSON value.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8 text, empty, not JSON, not
            of the ShareGPT shape, or a conversation in it is out of order.
    """
    path = Path(path)
    items = _parse(_read_text(path), path)
    if not items:
        raise DataError(f"{path} holds no samples.")
    return [_Reading(path, number, item).sample() for number, item in enumerate(items, start=1)]


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"There is no data file {path}.", hint="Check --data_path and --eval_data_path."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start} cannot be read).",
            hint="JSON and JSONL files are read; binary formats and other encodings are not.",
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not text.strip():
        raise DataError(f"{path} is empty.", hint="It has to hold at least one conversation.")
    return text


def _parse(text: str, path: Path) -> list[Any]:
    if path.suffix.lower() in _LINE_SUFFIXES:
        return _parse_lines(text, path)
    try:
        value = _loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _parse_lines(text, path)
        raise _broken_json(path, error.lineno, error) from None
    if isinstance(value, dict) and "conversations" in value:
        return [value]  # a JSONL file of one line
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {_kind(value)} at its top; a list of conversations is needed.",
            hint='Write [{"id": ..., "conversations": [...]}, ...].',
        )
    if value and all(isinstance(item, list) for item in value):
        logger.warning(
            "%s: its list of samples is inside another list; reading the inner one", path
        )
        value = [item for inner in value for item in inner]
    return value


def _parse_lines(text: str, path: Path) -> list[Any]:
    items = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append(_loads(line))
        except json.JSONDecodeError as error:
            raise _broken_json(path, number, error) from None
    return items


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("Brackets are nested too deeply", text, 0) from None


def _broken_json(path: Path, line: int, error: json.JSONDecodeError) -> DataError:
    return DataError(
        f"{path} is not valid JSON: {error.msg} at line {line}, column {error.colno}.",
        hint="A comma after the last item, a missing quote or a cut-off file are usual causes.",
    )


class _Reading:
    """One item of a file on its way to a `Sample`; knows where it stands, for the errors."""

    def __init__(self, path: Path, number: int, item: Any) -> None:
        self._path = path
        self._number = number
        self._item = item
        named = isinstance(item, dict) and isinstance(item.get("id"), (str, int))
        self._id = str(item["id"]) if named else f"#{number}"

    def sample(self) -> Sample:
        turns = [self._turn(index, turn) for index, turn in enumerate(self._turns(), start=1)]
        messages, turns = self._take_system(turns)
        leading = bool(turns) and turns[0][1] == "gpt"
        turns = turns[leading:]
        self._check_order(turns)
        trailing = len(turns) % 2 == 1
        if trailing:
            turns = turns[:-1]
        if not turns:
            messages = []
        messages += [{"role": _ROLES[role], "content": text} for _, role, text in turns]
        return Sample(self._id, tuple(messages), leading, trailing)

    def _turns(self) -> list[Any]:
        if not isinstance(self._item, dict):
            raise self._error(f"is {_kind(self._item)}, not an object with 'conversations'.")
        turns = self._item.get("conversations")
        if not isinstance(turns, list):
            given = _kind(turns) if "conversations" in self._item else "missing"
            raise self._error(
                f"needs a list under 'conversations'; it is {given}.",
                hint=f"Its keys are: {', '.join(map(repr, self._item)) or 'none'}.",
            )
        return turns

    def _turn(self, number: int, turn: Any) -> tuple[int, str, str]:
        """(turn number, role in the file's words, text)."""
        if not isinstance(turn, dict) or not turn.keys() >= {"from", "value"}:
            raise self._error("is not an object with 'from' and 'value'.", turn=number)
        role, text = turn["from"], turn["value"]
        known = ("system", *_ROLES) if number == 1 else tuple(_ROLES)
        if role not in known:
            raise self._error(
                f"has the role {role!r}.",
                turn=number,
                hint="Known roles: 'human', 'gpt', and 'system' for the first turn.",
            )
        return number, role, self._text(text, "'value'", number)

    def _text(self, text: Any, name: str, turn: int | None = None) -> str:
        if not isinstance(text, str):
            raise self._error(f"has {_kind(text)} as {name}; a string is needed.", turn=turn)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._error(
                f"holds half a character (a lone surrogate) at position {error.start} of {name}.",
                turn=turn,
            ) from None
        return text

    def _take_system(
        self, turns: list[tuple[int, str, str]]
    ) -> tuple[list[Message], list[tuple[int, str, str]]]:
        texts = []
        if self._item.get("system") is not None:
            texts.append(self._text(self._item["system"], "'system'"))
        if turns and turns[0][1] == "system":
            texts.append(turns[0][2])
            turns = turns[1:]
        texts = [text for text in texts if text.strip()]
        if len(texts) > 1:
            raise self._error("has a system text both under 'system' and as its first turn.")
        return [{"role": "system", "content": text} for text in texts], turns

    def _check_order(self, turns: list[tuple[int, str, str]]) -> None:
        for place, (number, role, _) in enumerate(turns):
            expected = ("human", "gpt")[place % 2]
            if role != expected:
                raise self._error(
                    f"is from {role!r} where one from {expected!r} is due.",
                    turn=number,
                    hint="Questions ('human') and answers ('gpt') have to take turns.",
                )

    def _error(
        self, message: str, *, turn: int | None = None, hint: str | None = None
    ) -> DataError:
        where = f"{self._path}: sample {self._number} (id {self._id!r})"
        return DataError(f"{where}{'' if turn is None else f', turn {turn},'} {message}", hint=hint)


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")
