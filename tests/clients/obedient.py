"""An engine that does what is asked of it: answers of the asked form, and calls of the shown tools.

Stands for a good fine-tune where other people's suites want to see one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.engine.base import GenerationEvent, GenerationRequest
from fastchat.engine.echo import EchoEngine

_CALL = '<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


class ObedientEngine(EchoEngine):
    """Answers a schema with a value of it, tools with a call of the first one, or by its script."""

    def _events(self, request: GenerationRequest) -> Sequence[GenerationEvent]:
        prompt = self.codec.decode_ids(request.prompt_ids, skip_special_tokens=True)
        grammar = request.sampling.grammar
        question = prompt.split("<n>")[-1]
        if grammar is None:
            answer = "Hello. " + question
        elif grammar.kind == "json_schema":
            answer = json.dumps(value_of(json.loads(grammar.text), question))
        elif grammar.kind == "ebnf" and "<tool_response>\n" not in question:
            answer = call(prompt, question)
        else:
            answer = "It is " + question
        ids = self.codec.encode_ids(answer, parse_special=False)
        return self._answer_events(request, [*ids, self._end_ids[0]])


def call(prompt: str, question: str) -> str:
    """A call of the first function that a prompt shows."""
    lines = re.findall(r'^\{"name": .*"parameters": .*\}$', prompt, re.MULTILINE)
    function = json.loads(lines[0])
    arguments = value_of(function["parameters"], question)
    return _CALL.format(name=json.dumps(function["name"]), arguments=json.dumps(arguments))


def value_of(
    schema: Mapping[str, Any], question: str, root: Mapping[str, Any] | None = None
) -> Any:
    """A value of a schema; numbers come from the question, and names that no schema tells."""
    root = root or schema
    if "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        return value_of(root["$defs"][name], question, root)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return value_of(schema[name][0], question, root)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        quoted = re.findall(r"['`\"](\w+)['`\"] key|['`](\w+)['`]", question)
        named = {name: {"type": "string"} for pair in quoted for name in pair if name}
        parts = schema.get("properties", named if schema is root else {})
        return {name: value_of(part, question, root) for name, part in parts.items()}
    if kind == "array":
        return [value_of(schema.get("items", {"type": "string"}), question, root)]
    if kind in ("integer", "number"):
        return int((re.findall(r"\d+", question) or ["3"])[-1])
    quoted = re.findall(r" '([^'\n]+)'", question)
    return {"boolean": True, "null": None}.get(kind, quoted[-1] if quoted else "because of it")
