"""Compiles what an answer has to look like."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastchat.engine.base import Grammar
from fastchat.engine.structured.matcher import GrammarMatcher
from fastchat.engine.structured.pieces import pieces_of
from fastchat.engine.structured.spelling import WrappedTable
from fastchat.engine.structured.token_table import TokenTable
from fastchat.errors import GenerationError, RequestError

MAX_CHARACTERS = 500_000
"""Of one schema, expression, list of choices or grammar."""

_KEPT = 64
# Without an end to the white space, a model that is unsure of itself goes on with it for ever.
_WHITE_SPACE = r"[ \n\r\t]{0,20}"
# Tokens that expressions often allow or forbid together, and that are then looked at once.
_FAMILIES = (
    "[a-z ]{1,20}",
    "[a-zA-Z0-9 ,.]{1,20}",
    "[\u4e00-\u9fff]{1,10}",
    "[a-zA-Z0-9_ \u4e00-\u9fff]{1,20}",
)


class Grammars:
    """Compiles grammars for one tokenizer, and keeps those of late.

    Any thread may call it. The first call reads the whole vocabulary, which takes about a
    second for a large one.

    Args:
        tokenizer: of the model.
        vocab_size: of the model's logits.
        end_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = tuple(end_ids)
        self._lock = threading.Lock()
        self._tables: tuple[TokenTable, Any] | None = None
        self._compiled: OrderedDict[Grammar, GrammarMatcher] = OrderedDict()

    def compile(self, grammar: Grammar) -> GrammarMatcher:
        """A matcher at the beginning of an answer.

        Raises:
            RequestError: the grammar is too long, too complex, malformed or unknown, or the
                tokenizer cannot be read.
        """
        with self._lock:
            table, tokens = self._read_tokenizer()
            matcher = self._compiled.pop(grammar, None)
        if matcher is None:
            matcher = _compiled(grammar, table, tokens)
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return matcher.copied()

    def _read_tokenizer(self) -> tuple[TokenTable, Any]:
        if self._tables is None:
            try:
                from llguidance import LLTokenizer
            except ImportError as error:
                raise RequestError(
                    "This server cannot keep answers in a form: llguidance is not installed.",
                    hint='Install "fastchat-yuan2[model_worker]", or leave out response_format.',
                    param="response_format",
                ) from error
            pieces = pieces_of(self._tokenizer, self._vocab_size)
            table = TokenTable(pieces, self._end_ids)
            ends = list(self._end_ids)
            wrapped: Any = WrappedTable(table)
            slices = [*LLTokenizer.general_slices(), *_FAMILIES]
            tokens = LLTokenizer(wrapped, n_vocab=len(table.texts), eos_token=ends, slices=slices)
            self._tables = table, tokens
        return self._tables


def _compiled(grammar: Grammar, table: TokenTable, tokens: Any) -> GrammarMatcher:
    from llguidance import LLMatcher, LLParserLimits

    read = _KINDS.get(grammar.kind)
    if read is None:
        raise _refused(grammar, f"there is no such kind; known are {', '.join(_KINDS)}")
    if len(grammar.text) > MAX_CHARACTERS:
        raise _refused(
            grammar, f"it has {len(grammar.text)} characters; at most {MAX_CHARACTERS} are allowed"
        )
    try:
        source = read(grammar.text)
    except RecursionError as error:
        raise _refused(grammar, "it is nested too deeply") from error
    except ValueError as error:
        raise _refused(grammar, str(error)) from error
    matcher = LLMatcher(tokens, source, log_level=0, limits=LLParserLimits(verbose_errors=False))
    if matcher.is_error():
        raise _refused(grammar, " ".join(matcher.get_error().split()))
    first = GrammarMatcher(table, matcher)
    try:  # now rather than in a step that other requests wait for
        first.fill(np.empty(table.words, np.int32))
    except GenerationError as error:
        raise _refused(grammar, error.message) from error
    return first


def _refused(grammar: Grammar, reason: str) -> RequestError:
    return RequestError(
        f"The {grammar.kind} that the answer has to follow cannot be used: {reason}.",
        param="response_format",
    )


def _schema(text: str) -> str:
    from llguidance import LLMatcher

    schema = json.loads(text)
    if not isinstance(schema, dict | bool):
        raise ValueError(f"a schema is a JSON object, not {type(schema).__name__}")  # noqa: TRY004
    source: str = LLMatcher.grammar_from_json_schema(
        text, overrides={"whitespace_pattern": _WHITE_SPACE}
    )
    return source


def _choice(text: str) -> str:
    choices = json.loads(text)
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(choice, str) for choice in choices)
    ):
        raise ValueError("choices are a JSON list of strings, at least one")
    # One terminal, not a rule each: the lexer follows thousands as easily as two.
    quoted = (json.dumps(choice, ensure_ascii=False) for choice in choices)
    return f"start: CHOICE\nCHOICE: {' | '.join(quoted)}"


def _expression(text: str) -> str:
    from llguidance import LLMatcher

    source: str = LLMatcher.grammar_from_regex(text)
    return source


def _lark(text: str) -> str:
    from llguidance import LLMatcher

    if not text.strip():
        raise ValueError("it is empty")
    source: str = LLMatcher.grammar_from_lark(text)
    return source


_KINDS: Mapping[str, Callable[[str], str]] = {
    "json": lambda _: _schema("{}"),
    "json_schema": _schema,
    "regex": _expression,
    "choice": _choice,
    "ebnf": _lark,
}
