"""Text of models and people as a page shows it: all of it, whatever HTML makes of it. Pure."""

from __future__ import annotations

import re

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
