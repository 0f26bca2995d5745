"""Reads preferences: a prompt, the answer that is to be preferred, and the one it is preferred to.

    {"id": "1", "prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}

`prompt` is a question or a list of messages `{"role": ..., "content": ...}` that ends with
one. `chosen` and `rejected` are texts, messages, or lists of messages that end with the
answer; what such lists hold before it has to be the prompt, which may then be left out. A
system text stands under `system` or as the first message. Every error names the file and
the sample. Knows nothing of tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.data.formats import OPENAI, ROLES, Place, Turn, kind, place_of, turns_of
from fastchat.data.json_values import JsonValues
from fastchat.data.parquet import parquet_items
from fastchat.data.reader import check_order, take_system
from fastchat.data.sample import Message, Sample
from fastchat.errors import DataError

_ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to the same prompt.

    Attributes:
        id: the sample's own id, or its place in the file ("#7") where it has none.
        prompt: perhaps a system message, then questions and answers in turn, the last of
            them a question.
        chosen: the better answer.
        rejected: the other one.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    def conversation(self, answer: str) -> Sample:
        """The prompt with an answer."""
        return Sample(self.id, (*self.prompt, {"role": "assistant", "content": answer}))


def iter_preferences(path: str | Path) -> Iterator[Preference]:
    """Reads a file of preferences one by one: JSON, JSON Lines or Parquet, as conversations.

    Raises:
        DataError: while iterating: the file is missing, unreadable, empty, not in its
            format, or a preference in it is not as it should be.
        SettingsError: it is a Parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    number = 0
    for number, item in enumerate(_items(path), start=1):
        yield preference_of(item, place_of(path, number, item))
    if not number:
        raise DataError(f"{path} holds no preferences.")


def iter_chosen(path: str | Path) -> Iterator[Sample]:
    """The prompts of a file with the answers that are preferred, as conversations.

    Raises:
        DataError: see `iter_preferences`.
        SettingsError: see `iter_preferences`.
    """
    for preference in iter_preferences(path):
        yield preference.conversation(preference.chosen)


def _items(path: Path) -> Iterator[Any]:
    if path.suffix.lower() in (".parquet", ".pq"):
        return parquet_items(path)
    return iter(JsonValues(path))


def preference_of(item: Any, place: Place) -> Preference:
    """An item as a checked preference.

    Raises:
        DataError: something is missing, of the wrong kind or out of order.
    """
    if not isinstance(item, dict):
        raise place.error(f"is {kind(item)}, not an object with 'prompt', 'chosen' and 'rejected'.")
    for name in _ANSWERS:
        if item.get(name) is None:
            raise place.error(
                f"has no {name!r}.", hint=f"Its keys are: {', '.join(map(repr, item)) or 'none'}."
            )
    (before, chosen), (other, rejected) = (_answer(item[name], name, place) for name in _ANSWERS)
    if item.get("prompt") is not None:
        prompt = _prompt(item, _turns(item["prompt"], "prompt", place), place)
    elif before:
        prompt = _prompt(item, before, place)
    else:
        raise place.error(
            "has no 'prompt'.", hint=f"Its keys are: {', '.join(map(repr, item)) or 'none'}."
        )
    for name, turns in zip(_ANSWERS, (before, other), strict=True):
        if turns and _prompt(item, turns, place) != prompt:
            raise place.error(f"has another conversation before the answer of {name!r}.")
    return Preference(place.id, prompt, chosen, rejected)


def _answer(value: Any, name: str, place: Place) -> tuple[list[Turn], str]:
    """What stands before an answer, if anything does, and the answer."""
    if isinstance(value, str):
        return [], place.text(value, f"'{name}'")
    turns = _turns([value] if isinstance(value, dict) else value, name, place)
    if not turns or ROLES.get(turns[-1].role) != "assistant":
        raise place.error(f"has a {name!r} that does not end with a message of the assistant.")
    return turns[:-1], turns[-1].text


def _turns(value: Any, name: str, place: Place) -> list[Turn]:
    if isinstance(value, str):
        return [Turn(1, OPENAI.question, place.text(value, f"'{name}'"))]
    if not isinstance(value, list):
        raise place.error(
            f"has {kind(value)} as {name!r}; a string or a list of messages is needed."
        )
    try:
        return turns_of({OPENAI.turns: value}, place)
    except DataError as error:
        raise DataError(f"{error.message} This is in {name!r}.", hint=error.hint) from None


def _prompt(item: dict[str, Any], turns: list[Turn], place: Place) -> tuple[Message, ...]:
    system, turns = take_system(item, turns, place)
    check_order({OPENAI.turns: turns}, turns, place)
    if len(turns) % 2 == 0:
        raise place.error("has a prompt that does not end with a question ('user').")
    messages = [{"role": ROLES[turn.role], "content": turn.text} for turn in turns]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tuple(messages)
