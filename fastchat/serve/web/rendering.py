"""How a conversation looks in a Gradio chat: its messages, with figures under each answer. Pure."""

from __future__ import annotations

import html
import re
from typing import Any

from fastchat.serve.talking.answer import STOPPED
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.words import say

Rendered = list[dict[str, Any]]


def rendered(thread: Thread, language: str) -> Rendered:
    """The messages that are shown, one for each of the path."""
    return [_rendered(message, language) for message in thread.path]


# Code and formulas, in which nothing is taken for a tag.
_VERBATIM = re.compile(
    r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`+[^`]*`+"
    r"|\$\$.*?(?:\$\$|\Z)|\$[^$\n]+\$|\\\(.*?\\\)|\\\[.*?\\\])",
    re.DOTALL,
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = "&lt;"


def shown(text: str) -> str:
    """A message's text so that a page shows all of it: what looks like HTML is text, too."""
    parts = _VERBATIM.split(text)
    parts[::2] = [_TAG.sub(_ENTITY, part) for part in parts[::2]]
    return "".join(parts)


def typed(text: str) -> str:
    """What was typed, of a text that somebody has changed as it was shown."""
    return text.replace(_ENTITY, "<")


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
