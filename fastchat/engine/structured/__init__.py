"""Answers of a given form: which tokens may follow, by llguidance.

Knows nothing of HTTP, of sampling or of models. llguidance is imported when the first grammar
is compiled.
"""

from __future__ import annotations

from fastchat.engine.structured.grammars import Grammars
from fastchat.engine.structured.matcher import GrammarMatcher

__all__ = ["GrammarMatcher", "Grammars"]
