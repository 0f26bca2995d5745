"""Reads conversations from JSON, JSON Lines and Parquet files and checks them.

    [{"id": "1", "conversations": [{"from": "human", "value": "Hi"},
                                   {"from": "gpt", "value": "Hello!"}]}]

`fastchat.data.formats` tells the formats. A sample may hold a system text, as `"system":
"..."` or as a first turn from "system". A turn before the first question and a last question
without an answer are left out. Every error names the file, the sample and the turn. Knows
nothing of tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastchat.data.formats import (
    ROLES,
    SHAREGPT,
    Place,
    Turn,
    is_conversation,
    kind,
    layout_of,
    place_of,
    system_of,
    turns_of,
)
from fastchat.data.json_values import JsonValues
from fastchat.data.parquet import parquet_items
from fastchat.data.plain_samples import plain_sample
from fastchat.data.sample import Message, Sample
from fastchat.errors import DataError

_PARQUET_SUFFIXES = (".parquet", ".pq")


def read_samples(path: str | Path) -> list[Sample]:
    """Reads a file of conversations, in the file's order.

    Raises:
        DataError: see `iter_samples`.
        SettingsError: see `iter_samples`.
    """
    return list(iter_samples(path))


def iter_samples(path: str | Path) -> Iterator[Sample]:
    """Reads a file of conversations one by one, in memory that does not grow with the file.

    Parquet is told by the suffix `.parquet`, JSON Lines by `.jsonl` or `.ndjson`; under any
    other name a file holds a list, one JSON value after the other, or a single sample.

    Raises:
        DataError: while iterating: the file is missing, unreadable, empty, not in its
            format (JSON is UTF-8 text), or a conversation in it is not as it should be.
        SettingsError: it is a Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    number = 0
    for number, item in enumerate(iter_items(path), start=1):
        yield plain_sample(item, number) or sample_of(item, place_of(path, number, item))
    if not number:
        raise DataError(f"{path} holds no samples.")


def iter_items(path: str | Path) -> Iterator[Any]:
    """The items of a file as they are, one by one.

    Raises:
        DataError: while iterating: the file cannot be read, or holds one JSON value that is
            neither a list nor a conversation.
        SettingsError: it is a Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix.lower() in _PARQUET_SUFFIXES:
        yield from parquet_items(path)
        return
    values = JsonValues(path)
    for value in values:
        if values.alone and not is_conversation(value):
            raise DataError(
                f"{path} holds {kind(value)} at its top; a list of conversations is needed.",
                hint='Write [{"id": ..., "conversations": [...]}, ...].',
            )
        yield value


def sample_of(item: Any, place: Place) -> Sample:
    """An item as a checked conversation.

    Raises:
        DataError: it is of no known format, or out of order.
    """
    turns = turns_of(item, place)
    system, turns = take_system(item, turns, place)
    leading = bool(turns) and ROLES[turns[0].role] == "assistant"
    turns = turns[leading:]
    check_order(item, turns, place)
    trailing = len(turns) % 2 == 1
    if trailing:
        turns = turns[:-1]
    messages: list[Message] = []
    if turns and system is not None:
        messages.append({"role": "system", "content": system})
    messages += [{"role": ROLES[turn.role], "content": turn.text} for turn in turns]
    return Sample(place.id, tuple(messages), leading, trailing)


def take_system(
    item: dict[str, Any], turns: list[Turn], place: Place
) -> tuple[str | None, list[Turn]]:
    """The system text of an item, from its field or its first turn, and the other turns.

    Raises:
        DataError: there are two, or the field holds no string.
    """
    texts = [system_of(item, place)]
    if turns and turns[0].role == "system":
        texts.append(turns[0].text)
        turns = turns[1:]
    given = [text for text in texts if text is not None and text.strip()]
    if len(given) > 1:
        raise place.error("has a system text both under 'system' and as its first turn.")
    return (given[0] if given else None), turns


def check_order(item: dict[str, Any], turns: Sequence[Turn], place: Place) -> None:
    """Checks that questions and answers take turns, beginning with a question.

    Raises:
        DataError: names the first turn that does not.
    """
    layout = layout_of(item) or SHAREGPT
    for index, turn in enumerate(turns):
        due, name = (("user", layout.question), ("assistant", layout.answer))[index % 2]
        if ROLES[turn.role] != due:
            raise place.error(
                f"is from {turn.role!r} where one from {name!r} is due.",
                turn=turn.number,
                hint=f"Questions ({layout.question!r}) and answers ({layout.answer!r}) have to "
                "take turns.",
            )
