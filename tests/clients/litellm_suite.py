"""What LiteLLM makes of the server, run in an environment of its own. Prints `fine` at the end."""

from __future__ import annotations

import asyncio
import json
import os

import litellm

ASK = {
    "model": "openai/echo",
    "api_base": os.environ["BASE_URL"],
    "api_key": "EMPTY",
    "messages": [{"role": "user", "content": "What is 4?"}],
}
PARAMETERS = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOLS = [{"type": "function", "function": {"name": "square", "parameters": PARAMETERS}}]


def check() -> None:
    whole = litellm.completion(**ASK)
    assert whole.choices[0].message.content == "Hello. What is 4?"
    assert whole.usage.total_tokens > 0
    pieces = [c.choices[0].delta.content or "" for c in litellm.completion(**ASK, stream=True)]
    assert "".join(pieces) == "Hello. What is 4?"
    (call,) = litellm.completion(**ASK, tools=TOOLS).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("square", {"x": 4})
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": PARAMETERS}}
    answer = litellm.completion(**ASK, response_format=form).choices[0].message.content
    assert json.loads(answer) == {"x": 4}
    told = asyncio.run(litellm.acompletion(**ASK, max_tokens=5)).choices[0]
    assert (told.message.content, told.finish_reason) == ("Hello", "length")
    where = {name: ASK[name] for name in ("model", "api_base", "api_key")}
    assert len(litellm.embedding(**where, input=["a", "b"]).data) == 2
    try:
        litellm.completion(**ASK, max_tokens=10**9)
    except litellm.ContextWindowExceededError:
        print("fine")


check()
