"""The short way from an item to a sample, for items with nothing out of the way in them.

`fastchat.data.reader.sample_of` reads every item and says what is wrong with it; what is
read here is read the same there, several times slower. Data of a million conversations is
mostly of this kind.
"""

from __future__ import annotations

from typing import Any

from fastchat.data.formats import BELLE_STARTS, ROLES, alpaca_question
from fastchat.data.sample import Message, Sample

_OTHER = {"user": "assistant", "assistant": "user"}


def plain_sample(item: Any, number: int) -> Sample | None:
    """The sample of a well-formed item; None where `sample_of` has to look at it.

    Args:
        item: an item of a file.
        number: its place in the file, from 1.
    """
    try:
        name = item.get("id")
        if item.get("system") is not None:
            return None
        if "conversations" in item:
            messages = _listed(item["conversations"], "from", "value")
        elif "messages" in item:
            messages = _listed(item["messages"], "role", "content")
        else:
            messages = _instruction(item)
            name = f"alpaca_{number - 1}" if name is None else name
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        return None
    if messages is None:
        return None
    if type(name) is not str:
        name = str(name) if isinstance(name, int) else f"#{number}"
    return Sample(name, messages)


def _listed(turns: list[Any], role_key: str, text_key: str) -> tuple[Message, ...] | None:
    """Messages of turns in order, perhaps behind a system text. Runs for every sample there is.

    Raises:
        KeyError, TypeError, UnicodeEncodeError: there is something out of the way.
    """
    messages = []
    due = "user"
    for turn in turns:
        text = turn[text_key]
        role = turn[role_key]
        if type(text) is not str:
            return None
        if not text.isascii():
            text.encode()
        if ROLES.get(role) == due:
            messages.append({"role": due, "content": text})
            due = _OTHER[due]
        elif role == "system" and not messages and text.strip():
            messages.append({"role": "system", "content": text})
        else:
            return None
    return tuple(messages) if due == "user" and len(messages) > 1 else None


def _instruction(item: dict[str, Any]) -> tuple[Message, ...] | None:
    question, answer, extra = item["instruction"], item["output"], item.get("input") or ""
    if item.get("history") or question.lstrip().startswith(BELLE_STARTS):
        return None
    for text in (question, answer, extra):
        if not text.isascii():
            text.encode()
    return (
        {"role": "user", "content": alpaca_question(question, extra)},
        {"role": "assistant", "content": answer},
    )
