"""What an answer has to look like, from the fields by which clients say it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastchat.errors import RequestError
from fastchat.protocol.openai_requests import ResponseFormat, SamplingRequest

Grammar = dict[str, str]
"""A kind and a text; see `fastchat.protocol.worker.GrammarParams`."""

_OBJECT = {"type": "object"}


def asked_grammar(request: SamplingRequest, form: ResponseFormat | None) -> Grammar | None:
    """The one form that a request asks for; None is free text.

    Args:
        request: with vLLM's fields.
        form: OpenAI's response_format.

    Raises:
        RequestError: several forms are asked for, or one that says nothing.
    """
    asked: dict[str, Grammar] = {}
    if form is not None and form.type != "text":
        asked["response_format"] = _of_response_format(form)
    for name, kind in _GUIDED.items():
        value = getattr(request, name)
        if value is not None:
            asked[name] = _grammar(kind, value)
    outputs = request.structured_outputs
    if outputs is not None:
        named = {kind: value for kind, value in _named(outputs) if value is not None}
        if len(named) != 1:
            raise RequestError(
                "structured_outputs has to hold exactly one of json, regex, choice, grammar and"
                " json_object.",
                param="structured_outputs",
            )
        asked["structured_outputs"] = _grammar(*next(iter(named.items())))
    if len(asked) > 1:
        raise RequestError(
            f"{' and '.join(asked)} both say what the answer has to look like; send one.",
            param=list(asked)[1],
        )
    return next(iter(asked.values()), None)


_GUIDED: Mapping[str, str] = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "ebnf",
}


def _named(outputs: Any) -> list[tuple[str, Any]]:
    return [
        ("json_schema", outputs.json_schema),
        ("regex", outputs.regex),
        ("choice", outputs.choice),
        ("ebnf", outputs.grammar),
        ("json", outputs.json_object or None),
    ]


def _of_response_format(form: ResponseFormat) -> Grammar:
    if form.type == "json_object":
        return _grammar("json_schema", _OBJECT)
    if form.json_schema is None or form.json_schema.schema_ is None:
        raise RequestError(
            "A response_format of type json_schema needs json_schema.schema.",
            param="response_format.json_schema.schema",
        )
    return _grammar("json_schema", form.json_schema.schema_)


def _grammar(kind: str, value: Any) -> Grammar:
    if kind == "json":
        kind, value = "json_schema", _OBJECT
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"kind": kind, "text": text}
