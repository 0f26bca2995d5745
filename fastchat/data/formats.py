r"""What a conversation looks like in a file: the formats, told apart by an item's keys.

    ShareGPT  {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", ...}]}
    OpenAI    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", ...}]}
    Alpaca    {"instruction": ..., "input": ..., "output": ...}, perhaps "system", "history"
    BELLE     {"instruction": "Human:...\nAssistant:...\nHuman:...", "output": ...}

An item becomes a list of `Turn`s, in the words of its file. Knows nothing of files, and not
which order turns have to come in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from fastchat.errors import DataError

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}
"""Roles in the files -> roles of a `Sample`; "system" is known as well, for the first turn."""

BELLE_STARTS = ("Human:", "Human：")
_BELLE_TURN = re.compile(r"^(Human|Assistant)[:：]", re.MULTILINE)
_BELLE_ROLES = {"Human": "human", "Assistant": "gpt"}


class Turn(NamedTuple):
    """One turn: its place in the item from 1, its role in the file's words, its text."""

    number: int
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a format that lists its turns keeps them: names of keys, and its own roles."""

    turns: str
    role: str
    text: str
    question: str
    answer: str


SHAREGPT = Layout("conversations", "from", "value", "human", "gpt")
OPENAI = Layout("messages", "role", "content", "user", "assistant")
LAYOUTS = (SHAREGPT, OPENAI)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands, for the errors.

    Attributes:
        file: the file that it is from.
        number: its place in the file, from 1.
        id: its own id, or its place (`#7`).
    """

    file: Any
    number: int
    id: str

    def error(self, what: str, *, turn: int | None = None, hint: str | None = None) -> DataError:
        """A complaint about the item, or about a turn of it."""
        where = f"{self.file}: sample {self.number} (id {self.id!r})"
        return DataError(f"{where}{'' if turn is None else f', turn {turn},'} {what}", hint=hint)

    def text(self, value: Any, name: str, turn: int | None = None) -> str:
        """`value` itself.

        Raises:
            DataError: it is no string, or one that UTF-8 cannot hold.
        """
        if not isinstance(value, str):
            raise self.error(f"has {kind(value)} as {name}; a string is needed.", turn=turn)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise self.error(
                    f"holds half a character (a lone surrogate) at position {error.start} "
                    f"of {name}.",
                    turn=turn,
                ) from None
        return value


def layout_of(item: dict[str, Any]) -> Layout | None:
    """The layout of an item that lists its turns; None for any other."""
    for layout in LAYOUTS:
        if item.get(layout.turns) is not None:
            return layout
    return None


def is_instruction(item: dict[str, Any]) -> bool:
    """Whether an item is of Alpaca's or BELLE's form, and has no list of turns."""
    return item.get("instruction") is not None and layout_of(item) is None


def is_conversation(value: Any) -> bool:
    """Whether a JSON value has a key of one of the formats, be its value right or wrong."""
    names = {"instruction", *(layout.turns for layout in LAYOUTS)}
    return isinstance(value, dict) and not names.isdisjoint(value)


def place_of(file: Any, number: int, item: Any) -> Place:
    """Where the item number `number` (from 1) of a file stands, under the id it is known by."""
    if isinstance(item, dict):
        name = item.get("id")
        if isinstance(name, str | int):
            return Place(file, number, str(name))
        if is_instruction(item):
            return Place(file, number, f"alpaca_{number - 1}")
    return Place(file, number, f"#{number}")


def turns_of(item: Any, place: Place) -> list[Turn]:
    """All turns of an item of any format, the system text of a field not included.

    Raises:
        DataError: the item is of no known format, or a turn of it is not as it should be.
    """
    if not isinstance(item, dict):
        raise place.error(f"is {kind(item)}, not an object with 'conversations'.")
    layout = layout_of(item)
    if layout is not None:
        turns = item[layout.turns]
        if not isinstance(turns, list):
            _refuse(item, place, layout)
        return [_turn(turn, number, layout, place) for number, turn in enumerate(turns, start=1)]
    if is_instruction(item):
        return _instruction_turns(item, place)
    return _refuse(item, place, next((each for each in LAYOUTS if each.turns in item), SHAREGPT))


def system_of(item: dict[str, Any], place: Place) -> str | None:
    """The system text that an item has as a field of its own.

    Raises:
        DataError: it is no string.
    """
    system = item.get("system")
    return None if system is None else place.text(system, "'system'")


def alpaca_question(instruction: str, extra: str) -> str:
    """The question that an instruction and its input make."""
    return f"{instruction}\nInput:\n{extra}" if len(extra) > 1 else instruction


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def _refuse(item: dict[str, Any], place: Place, layout: Layout) -> NoReturn:
    given = kind(item[layout.turns]) if layout.turns in item else "missing"
    raise place.error(
        f"needs a list under '{layout.turns}'; it is {given}.",
        hint=f"Its keys are: {', '.join(map(repr, item)) or 'none'}. Known are 'conversations' "
        "(ShareGPT), 'messages' (OpenAI), and 'instruction' with 'output' (Alpaca, BELLE).",
    )


def _turn(turn: Any, number: int, layout: Layout, place: Place) -> Turn:
    if not isinstance(turn, dict) or layout.role not in turn or layout.text not in turn:
        raise place.error(
            f"is not an object with '{layout.role}' and '{layout.text}'.", turn=number
        )
    role, text = turn[layout.role], turn[layout.text]
    known = isinstance(role, str) and (role in ROLES or (role == "system" and number == 1))
    if not known:
        names = ", ".join(map(repr, ROLES))
        raise place.error(
            f"has the role {role!r}.",
            turn=number,
            hint=f"Known roles: {names}, and 'system' for the first turn.",
        )
    if isinstance(text, list) and layout is OPENAI:
        text = _joined(text, number, place)
    return Turn(number, role, place.text(text, f"'{layout.text}'", number))


def _joined(parts: list[Any], number: int, place: Place) -> str:
    """Text parts as one text, joined as the API server joins them."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            given = repr(part.get("type")) if isinstance(part, dict) else kind(part)
            raise place.error(
                f"has a part of its 'content' that is {given}; only 'text' parts can be read.",
                turn=number,
            )
        texts.append(place.text(part.get("text"), "'text'", number))
    return "\n".join(texts)


def _instruction_turns(item: dict[str, Any], place: Place) -> list[Turn]:
    instruction = place.text(item["instruction"], "'instruction'")
    if "output" not in item:
        raise place.error(
            "has an 'instruction' and no 'output'.",
            hint=f"Its keys are: {', '.join(map(repr, item))}.",
        )
    answer = place.text(item["output"], "'output'")
    extra = place.text(item.get("input") or "", "'input'")
    said = _history(item.get("history") or [], place)
    if instruction.lstrip().startswith(BELLE_STARTS) and not extra.strip():
        said += _belle(instruction)
    else:
        said.append(("human", alpaca_question(instruction, extra)))
    said.append(("gpt", answer))
    return [Turn(number, role, text) for number, (role, text) in enumerate(said, start=1)]


def _history(history: Any, place: Place) -> list[tuple[str, str]]:
    if not isinstance(history, list):
        raise place.error(f"has {kind(history)} as 'history'; a list of pairs is needed.")
    said = []
    for number, pair in enumerate(history, start=1):
        name = f"pair {number} of 'history'"
        if not isinstance(pair, list) or len(pair) != 2:
            raise place.error(f"has, as {name}, no list of a question and an answer.")
        said += [("human", place.text(pair[0], name)), ("gpt", place.text(pair[1], name))]
    return said


def _belle(instruction: str) -> list[tuple[str, str]]:
    """The turns inside a BELLE instruction; an empty "Assistant:" at its end is no turn."""
    _, *pieces = _BELLE_TURN.split(instruction.strip())
    said = [
        (_BELLE_ROLES[name], text.strip())
        for name, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    return said[:-1] if said[-1] == ("gpt", "") else said
