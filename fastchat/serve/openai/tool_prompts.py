"""How tools, calls and results are shown to a model that knows only text. Pure.

Yuan2 has no tokens for tools: a system text lists them, a call is a piece of an answer
between `<tool_call>` and `</tool_call>`, a result a piece of a question between
`<tool_response>` and `</tool_response>`. A fine-tune on such text makes the calls good; the
grammar makes them well-formed in any case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.errors import RequestError
from fastchat.protocol.openai_tools import FunctionDefinition
from fastchat.serve.openai.tool_grammar import CLOSE, NO_ARGUMENTS, OPEN

_SHOWN = """\
You can call functions. These are there, one a line:
{functions}

To call one, write
{open}
{{"name": "NAME", "arguments": {{...}}}}
{close}
with arguments as its parameters describe them. The result comes back between <tool_response> \
and </tool_response>."""

_AUTO = "Answer in plain words where no function helps."
_REQUIRED = "Answer with a call and nothing else."


def tools_text(functions: Sequence[FunctionDefinition], *, must_call: bool) -> str:
    """What the system message says about the functions."""
    listed = "\n".join(json.dumps(_shown(each), ensure_ascii=False) for each in functions)
    shown = _SHOWN.format(functions=listed, open=OPEN, close=CLOSE)
    return f"{shown} {_REQUIRED if must_call else _AUTO}"


def _shown(function: FunctionDefinition) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": function.name}
    if function.description:
        shown["description"] = function.description
    return {**shown, "parameters": function.parameters or NO_ARGUMENTS}


def with_tools(messages: list[dict[str, str]], text: str) -> list[dict[str, str]]:
    """Messages whose system message ends in a text about tools; there is one from then on."""
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def calls_text(calls: Any, where: str) -> str:
    """An assistant's calls as it would have written them.

    Args:
        calls: `tool_calls` of a message.
        where: the message, for errors.

    Raises:
        RequestError: a call without a function's name or arguments.
    """
    if not isinstance(calls, list):
        raise RequestError(f"{where}.tool_calls is no list.", param=f"{where}.tool_calls")
    return "\n".join(
        _call_text(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(calls)
    )


def _call_text(call: Any, where: str) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments", "{}") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise RequestError(
            f"{where} has no function with a name and with arguments as text.",
            param=f"{where}.function",
        )
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n{CLOSE}'


def result_text(content: str) -> str:
    """A tool's result as the model reads it."""
    return f"<tool_response>\n{content}\n</tool_response>"
