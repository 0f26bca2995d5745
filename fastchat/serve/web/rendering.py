"""How a conversation looks in a Gradio chat: its messages, with figures under each answer. Pure."""

from __future__ import annotations

import html
from typing import Any

from fastchat.serve.talking.answer import STOPPED
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.words import cause, say
from fastchat.shown_text import shown

Rendered = list[dict[str, Any]]


STEP = 20
"""How many messages the beginning of what is shown moves by; an even number."""


def first_shown(count: int, earlier: int = 0) -> int:
    """The place of the first message that is shown.

    A page draws at each change all that it shows, so long conversations are shown from near
    their end. The beginning moves in steps: if it moved with every turn, all would be new to the
    page.

    Args:
        count: messages that there are.
        earlier: how many to show beside the last ones.
    """
    return max(0, max(0, (count - 1) // STEP - 1) * STEP - earlier)


def rendered(thread: Thread, language: str, earlier: int = 0) -> Rendered:
    """The messages that are shown, one for each of the path from `first_shown` on."""
    path = thread.path
    return [_rendered(message, language) for message in path[first_shown(len(path), earlier) :]]


def _rendered(message: Message, language: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": shown(message.text)}]
    line = figures(message, language)
    if line:
        # A component beside the text: copying an answer must not copy figures.
        kind = "figures failed" if "error" in message.stats else "figures"
        note = f'<div class="{kind}">{html.escape(line)}</div>'
        props = {"value": note, "visible": True, "container": False, "padding": False}
        content.append(
            {
                "type": "component",
                "component": "html",
                "value": note,
                "constructor_args": {},
                "props": props,
            }
        )
    return {"role": message.role, "content": content}


def figures(message: Message, language: str) -> str:
    """What there is to say about an answer; "" while it grows, and of questions."""
    stats = message.stats
    if "error" in stats:
        key = "broke_off" if message.text else "failed"
        error = cause(language, stats.get("error_kind", ""), stats["error"])
        told = say(language, key, error=error)
        return f"{told} ({say(language, 'request', request_id=stats.get('request_id', '?'))})"
    reason = stats.get("finish_reason")
    if reason is None:
        return ""
    parts = []
    if "tokens" in stats:
        parts.append(say(language, "stats_tokens", tokens=stats["tokens"]))
    if "tokens_per_s" in stats:
        parts.append(say(language, "stats_speed", speed=stats["tokens_per_s"]))
    if "first_token_s" in stats:
        parts.append(say(language, "stats_first", seconds=stats["first_token_s"]))
    known = {"stop", "length", STOPPED}
    parts.append(say(language, f"finish_{reason}") if reason in known else str(reason))
    return " · ".join(parts)
