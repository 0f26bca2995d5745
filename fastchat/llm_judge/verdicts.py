"""Reads a verdict out of what a judge wrote. Pure.

A judge explains itself first, and may quote the form of a verdict or what an answer asks for on
the way: the last verdict counts. `[[x]]` counts before `[x]`.
"""

from __future__ import annotations

import re
from typing import Literal

from fastchat.llm_judge.judge_prompts import LETTER

Side = Literal["A", "B", "tie", "error"]
UNPARSED = -1.0
TIE_DELTA = 0.1
_HIGHEST = 10.0
_NUMBER = r"(\d+(?:\.\d+)?)"
_RATINGS = (re.compile(rf"\[\[\s*{_NUMBER}\s*\]\]"), re.compile(rf"\[\s*{_NUMBER}\s*\]"))
_PAIRS = (
    re.compile(rf"\[\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]\]"),
    re.compile(rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]"),
)
_LETTER = re.compile(r"\[\[\s*([ABC])\s*\]\]")


def rating(judgment: str) -> float:
    """The score, 0 to 10; -1 if there is none."""
    for pattern in _RATINGS:
        found = [score for text in pattern.findall(judgment) if (score := float(text)) <= _HIGHEST]
        if found:
            return found[-1]
    return UNPARSED


def winner(judgment: str, output_format: str) -> Side:
    """Which of two answers won; "error" if the judge does not say."""
    if output_format == LETTER:
        letters = _LETTER.findall(judgment)
        sides: dict[str, Side] = {"A": "A", "B": "B", "C": "tie"}
        return sides[letters[-1]] if letters else "error"
    for pattern in _PAIRS:
        pairs = pattern.findall(judgment)
        if pairs:
            a, b = map(float, pairs[-1])
            if abs(a - b) <= TIE_DELTA + 1e-9:
                return "tie"
            return "A" if a > b else "B"
    return "error"
