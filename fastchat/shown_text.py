"""Text of models and people as a page shows it: all of it, whatever HTML makes of it. Pure."""

from __future__ import annotations

import re

# Code and formulas, in which nothing is taken for a tag. Dollars are a formula's where they touch
# it and no other word: "$5 or $10" is none, and neither is "$HOME/$USER".
_VERBATIM = re.compile(
    r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`+[^`]*`+"
    r"|\$\$.*?(?:\$\$|\Z)|\\\(.*?\\\)|\\\[.*?\\\]"
    r"|(?<![\\$\w])\$(?=[^\s$])[^$\n]*(?<=[^\s\\])\$(?![\w$]))",
    re.DOTALL | re.ASCII,
)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
# In spellings that nobody types, so that they can be told from what was written; page.js and
# `written` know them.
_LESS = "&#000060;"
_JOINER = "\u2060"

LATEX = (
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "$" + _JOINER, "right": _JOINER + "$", "display": False},
)
"""What is around a formula, for Gradio."""


def shown(text: str) -> str:
    """A message's text so that a page shows all of it: what looks like HTML is text, too."""
    parts = _VERBATIM.split(text)
    parts[::2] = [_TAG.sub(_LESS, part) for part in parts[::2]]
    parts[1::2] = [_formula(part) for part in parts[1::2]]
    return "".join(parts)


def _formula(part: str) -> str:
    if part[0] != "$" or part.startswith("$$"):
        return part
    return f"${_JOINER}{part[1:-1]}{_JOINER}$"


def written(text: str) -> str:
    """What was written, of a text as it was shown, which somebody may have changed."""
    plain = text.replace(_LESS, "<")
    return plain.replace("$" + _JOINER, "$").replace(_JOINER + "$", "$")
