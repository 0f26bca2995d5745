"""Chat messages as clients send them, and as templates take them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastchat.conversation import Conversation
from fastchat.errors import RequestError
from fastchat.serve.openai.tool_prompts import calls_text, result_text

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
}

_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages of role and text; the parts of a content are joined by newlines.

    An assistant's calls become text of its answer. Results of tools become a question, the
    results of one answer's calls together.

    Raises:
        RequestError: no messages, an unknown role, or a content that is not text.
    """
    if not messages:
        raise RequestError(
            "The message list is empty; at least one message is needed.", param="messages"
        )
    plain: list[dict[str, str]] = []
    results = False
    for index, message in enumerate(messages):
        role = _role(message, index)
        is_result = message["role"] == "tool"
        text = _text(message, index)
        if is_result:
            text = result_text(text)
        if is_result and results:
            plain[-1] = {"role": role, "content": f"{plain[-1]['content']}\n{text}"}
        else:
            plain.append({"role": role, "content": text})
        results = is_result
    return plain


def _role(message: Mapping[str, Any], index: int) -> str:
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            f"messages[{index}].role is {role!r:.100}; allowed are {', '.join(map(repr, _ROLES))}.",
            param=f"messages[{index}].role",
        )
    return _ROLES[role]


def _text(message: Mapping[str, Any], index: int) -> str:
    where = f"messages[{index}]"
    calls = message.get("tool_calls") if message["role"] == "assistant" else None
    content = message.get("content")
    if not calls:
        return content_text(content, f"{where}.content")
    called = calls_text(calls, where)
    before = content_text(content, f"{where}.content") if content else ""
    return f"{before}\n{called}" if before else called


def content_text(content: Any, where: str) -> str:
    """The text of a message's content, which is a text or a list of text parts.

    Raises:
        RequestError: it is something else; `where` names the place.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(
            f"{where} is {content!r:.100}; a text or a list of text parts is needed.", param=where
        )
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else part
        text = part.get("refusal" if kind == "refusal" else "text") if kind != part else None
        if not isinstance(text, str) or kind not in (*_TEXT_PARTS, None):
            raise RequestError(
                f"{where}[{number}] is {kind!r:.100}; this model reads text parts only.",
                param=f"{where}[{number}]",
            )
        texts.append(text)
    return "\n".join(texts)


def render_prompt(template: Conversation, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt of messages under a conversation template, as FastChat's workers expect it."""
    # Lists of turns are added to, never changed: a full copy would cost more than all the rest.
    conversation = replace(template, messages=list(template.messages))
    for message in messages:
        if message["role"] == "system":
            conversation.set_system_message(message["content"])
        else:
            role = conversation.roles[message["role"] == "assistant"]
            conversation.append_message(role, message["content"])
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()
