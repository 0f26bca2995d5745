"""How a conversation looks in a Gradio chat: its messages, with figures under each answer. Pure."""

from __future__ import annotations

import html
from typing import Any

from fastchat.serve.talking.answer import STOPPED
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.words import say
from fastchat.shown_text import shown, typed

__all__ = ["Rendered", "figures", "rendered", "shown", "typed"]

Rendered = list[dict[str, Any]]


def rendered(thread: Thread, language: str) -> Rendered:
    """The messages that are shown, one for each of the path."""
    return [_rendered(message, language) for message in thread.path]


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
        told = say(language, key, error=stats["error"])
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
