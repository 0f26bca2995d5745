"""What a visitor typed, checked before a model is asked. Knows no page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastchat.errors import FastChatError, RequestError
from fastchat.serve.web.desk import Desk, Session
from fastchat.serve.web.text_files import read_text, with_files
from fastchat.serve.web.words import say


@dataclass(frozen=True, slots=True)
class Typed:
    """A message, as it will be sent.

    Attributes:
        remark: what was changed about it; "" for nothing.
    """

    text: str
    remark: str = ""


async def checked(
    desk: Desk,
    session: Session,
    language: str,
    model: str | None,
    text: str,
    files: Sequence[str] = (),
    *,
    most_characters: int,
) -> Typed:
    """The message to be sent.

    Raises:
        RequestError: it cannot be sent; says why, in the visitor's language.
    """
    check_may_ask(desk, session, language, model)
    text = text.strip("\n")
    if not text.strip() and not files:
        raise RequestError(say(language, "nothing_said"))
    remark = ""
    if len(text) > most_characters:
        text = text[:most_characters]
        remark = say(language, "cut", limit=most_characters)
    if files:
        read = [await asyncio.to_thread(_read, Path(file), language) for file in files]
        text = with_files(text, read)
    room = await desk.room(model or "", text)
    if room is not None and room.tokens >= room.context:
        told = say(language, "too_long", tokens=room.tokens, context=room.context)
        raise RequestError(told)
    return Typed(text, remark)


def check_may_ask(
    desk: Desk, session: Session, language: str, model: str | None, *, more_turns: int = 1
) -> None:
    """Whether an answer may be asked for now.

    Args:
        desk, session, language, model: of the pane.
        more_turns: by how many turns it makes the conversation longer.

    Raises:
        RequestError: not now; says why, in the visitor's language.
    """
    if session.answering:
        raise RequestError(say(language, "answering"))
    if not model:
        raise RequestError(say(language, "no_model"))
    if len(session.thread.path) // 2 + more_turns > desk.turn_limit:
        raise RequestError(say(language, "turn_limit", limit=desk.turn_limit))
    reached = desk.limits.reached(session.person, desk.clock())
    if reached:
        limit = getattr(desk.limits, reached)
        raise RequestError(say(language, f"limit_{reached}", limit=limit))


def _read(path: Path, language: str) -> tuple[str, str]:
    try:
        return path.name, read_text(path)
    except FastChatError as error:
        raise RequestError(say(language, "file_refused", name=path.name, error=error)) from error
