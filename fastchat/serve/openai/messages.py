"""Chat messages as clients send them, and as templates take them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.conversation import Conversation
from fastchat.errors import RequestError

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages of role and text; the parts of a content are joined by newlines.

    Raises:
        RequestError: no messages, an unknown role, or a content that is not text.
    """
    if not messages:
        raise RequestError(
            "The message list is empty; at least one message is needed.", param="messages"
        )
    return [
        {"role": _role(message, index), "content": _text(message, index)}
        for index, message in enumerate(messages)
    ]


def _role(message: Mapping[str, Any], index: int) -> str:
    role = message.get("role")
    if role not in _ROLES:
        raise RequestError(
            f"messages[{index}].role is {role!r}; allowed are {', '.join(map(repr, _ROLES))}.",
            param=f"messages[{index}].role",
        )
    return _ROLES[str(role)]


def _text(message: Mapping[str, Any], index: int) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    where = f"messages[{index}].content"
    if not isinstance(content, list):
        raise RequestError(
            f"{where} is {content!r:.100}; a text or a list of text parts is needed.", param=where
        )
    texts = []
    for number, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise RequestError(
                f"{where}[{number}] is {kind!r:.100}; this model reads text parts only.",
                param=f"{where}[{number}]",
            )
        texts.append(part["text"])
    return "\n".join(texts)


def render_prompt(template: Conversation, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt of messages under a conversation template, as FastChat's workers expect it."""
    conversation = template.copy()
    for message in messages:
        if message["role"] == "system":
            conversation.set_system_message(message["content"])
        else:
            role = conversation.roles[message["role"] == "assistant"]
            conversation.append_message(role, message["content"])
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()
