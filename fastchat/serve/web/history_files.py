"""Conversations as files: JSON holds everything, Markdown what is shown.

Both can be read back. Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

from fastchat.errors import DataError
from fastchat.serve.web.thread import ROLES, Message, Role, Thread, title_of

FORMAT = "fastchat-conversations"
VERSION = 1
_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}
_MARK = re.compile(r"<!-- (system|user|assistant)(?:: (.*))? -->")
_MARK_IN_TEXT = re.compile(r"^(\\*<!-- (?:system|user|assistant)\b)", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*<!-- (?:system|user|assistant)\b)", re.MULTILINE)


def to_json(threads: Iterable[Thread]) -> str:
    """Conversations with all versions and branches."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "conversations": [_document(thread) for thread in threads],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def to_markdown(thread: Thread) -> str:
    """What is shown of a conversation. Comments mark where a message starts."""
    blocks = ["# " + " ".join(thread.title.splitlines())]
    if thread.system:
        blocks.append(_block("system", "", thread.system))
    blocks += [_block(message.role, message.model, message.text) for message in thread.path]
    return "\n\n".join(blocks) + "\n"


def read(text: str, *, new_id: Callable[[], str], now: float) -> list[Thread]:
    """The conversations in a file of either kind, under new ids.

    OpenAI's `{"messages": [...]}` can be read too.

    Raises:
        DataError: it holds something else, and says what is wrong.
    """
    if not text.lstrip("\ufeff").lstrip().startswith(("{", "[")):
        return [_from_markdown(text, new_id=new_id, now=now)]
    try:
        document = json.loads(text.lstrip("\ufeff"))
    except ValueError as error:
        raise DataError(f"The file is no valid JSON: {error}.") from error
    if isinstance(document, dict) and isinstance(document.get("messages"), list):
        return [_from_openai(document["messages"], new_id=new_id, now=now)]
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(
            f"The file holds no conversations: its format is not {FORMAT!r}.",
            hint='Files exported here can be imported, and OpenAI\'s {"messages": [...]}.',
        )
    if document.get("version") != VERSION:
        raise DataError(f"The file is of version {document.get('version')!r}; {VERSION} is known.")
    try:
        return [_thread(each, new_id, now) for each in document["conversations"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"A conversation in the file is incomplete: {error}.") from error


def _document(thread: Thread) -> dict[str, Any]:
    return {
        "title": thread.title,
        "system": thread.system,
        "model": thread.model,
        "created": thread.created,
        "leaf": thread.leaf,
        "messages": [
            {name: getattr(message, name) for name in Message.__dataclass_fields__}
            for message in thread.all_messages
        ],
    }


def _thread(document: dict[str, Any], new_id: Callable[[], str], now: float) -> Thread:
    renamed: dict[str | None, str | None] = {None: None}
    messages = []
    for each in document["messages"]:
        if each["parent"] not in renamed:
            raise DataError(f"Message {each['id']!r} follows {each['parent']!r}, which is missing.")
        renamed[each["id"]] = name = new_id()
        stats = each.get("stats", {})
        messages.append(
            Message(
                name,
                renamed[each["parent"]],
                _role(each["role"]),
                _text(each["text"]),
                _text(each.get("model", "")),
                dict(stats),
                float(each.get("created", now)),
            )
        )
    if document["leaf"] not in renamed:
        raise DataError(f"The conversation ends with {document['leaf']!r}, which is missing.")
    return Thread(
        new_id(),
        title=_text(document["title"]),
        system=_text(document["system"]),
        model=_text(document.get("model", "")),
        created=float(document.get("created", now)),
        messages=messages,
        leaf=renamed[document["leaf"]],
    )


def _from_openai(given: list[Any], *, new_id: Callable[[], str], now: float) -> Thread:
    thread = Thread(new_id(), created=now)
    for each in given:
        if not isinstance(each, dict) or not isinstance(each.get("content"), str):
            raise DataError(f"A message is {each!r:.80}; it needs a role and a content.")
        if each.get("role") == "system":
            thread.system = each["content"]
        else:
            role = _role(each.get("role"))
            thread.add(Message(new_id(), thread.leaf, role, each["content"], created=now))
    return thread


def _block(role: str, model: str, text: str) -> str:
    mark = f"<!-- {role}{': ' + model if model else ''} -->"
    return f"{mark}\n**{_NAMES[role]}**\n\n" + _MARK_IN_TEXT.sub(r"\\\1", text)


def _from_markdown(text: str, *, new_id: Callable[[], str], now: float) -> Thread:
    lines = text.split("\n")
    marks = [at for at, line in enumerate(lines) if _MARK.fullmatch(line)]
    if not marks:
        raise DataError(
            "The file holds no conversation: no line such as '<!-- user -->' starts a message."
        )
    title = lines[0].removeprefix("# ") if lines[0].startswith("# ") else ""
    thread = Thread(new_id(), title=title, created=now)
    for start, end in zip(marks, [*marks[1:], len(lines) + 1], strict=True):
        mark = _MARK.fullmatch(lines[start])
        assert mark is not None
        # Past the mark, the speaker's name and an empty line; up to the empty line at the end.
        body = _ESCAPED.sub(r"\1", "\n".join(lines[start + 3 : end - 1]))
        if end == len(lines) + 1:
            body = body.removesuffix("\n")
        if mark[1] == "system":
            thread.system = body
        else:
            thread.add(
                Message(
                    new_id(), thread.leaf, _role(mark[1]), body, model=mark[2] or "", created=now
                )
            )
    thread.title = title or thread.title or title_of(text)
    return thread


def _role(value: Any) -> Role:
    for role in ROLES:
        if value == role:
            return role
    raise DataError(f"A message's role is {value!r}; allowed are {', '.join(get_args(Role))}.")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{value!r:.50} stands where a text belongs.")
    return value
