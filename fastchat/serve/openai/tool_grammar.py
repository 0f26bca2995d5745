"""The grammar that holds a model to its tools: calls of the schemas' form, or text. Pure.

A call is written as

    <tool_call>
    {"name": "NAME", "arguments": {...}}
    </tool_call>

in Lark's notation with llguidance's `%json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.protocol.openai_tools import FunctionDefinition
from fastchat.serve.openai.grammars import Grammar

OPEN = "<tool_call>"
CLOSE = "</tool_call>"

NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}

# Without an end to the white space, a model that is unsure of itself goes on with it for ever.
_FORMATTING = {"whitespace_pattern": r"[ \n\r\t]{0,20}"}


def call_grammar(
    functions: Sequence[FunctionDefinition],
    *,
    several: bool,
    must_call: bool,
    answer_schema: str | None = None,
) -> Grammar:
    """What an answer may look like.

    Args:
        functions: those that may be called, at least one.
        several: an answer may make more than one call.
        must_call: an answer is calls and nothing else; it may be text if not.
        answer_schema: the JSON schema of an answer that is no call; None is free text.
    """
    calls = 'call ("\\n" start_call)*' if several else "call"
    lines = [f"calls: {calls}", f"start_call: {json.dumps(OPEN)} call"]
    names = [f"call_{number}" for number in range(len(functions))]
    lines.append("call: " + " | ".join(names))
    lines += [
        f"{name}: {_literal(_head(function))} %json {_schema(function)} {_literal(_TAIL)}"
        for name, function in zip(names, functions, strict=True)
    ]
    if must_call:
        start = [f"start: {json.dumps(OPEN)} calls"]
    elif answer_schema is not None:
        start = [f"start: answer | {json.dumps(OPEN)} calls", f"answer: %json {answer_schema}"]
    else:
        # Text may stand before the calls, and the text ends where the first call begins.
        start = [
            "start: TEXT | before calls",
            f"before[suffix={json.dumps(OPEN)}]: /(?s:.*)/",
            f"TEXT: /(?s:.*)/ & ~/(?s:.*{OPEN}.*)/",
        ]
    return {"kind": "ebnf", "text": "\n".join([*start, *lines]) + "\n"}


_TAIL = "}\n" + CLOSE


def _head(function: FunctionDefinition) -> str:
    return f'\n{{"name": {json.dumps(function.name)}, "arguments": '


def _literal(text: str) -> str:
    return json.dumps(text)


def _schema(function: FunctionDefinition) -> str:
    schema = function.parameters or NO_ARGUMENTS
    return json.dumps({**schema, "x-guidance": _FORMATTING})
