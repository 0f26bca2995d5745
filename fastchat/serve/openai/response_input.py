"""From a Responses request to the chat request that means the same. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastchat.errors import RequestError
from fastchat.protocol.openai_api_protocol import ChatCompletionRequest
from fastchat.protocol.openai_responses import FunctionChoice, ResponsesRequest
from fastchat.serve.openai.messages import content_text

_LOGPROBS = "message.output_text.logprobs"

_NAMES = {"messages": "input", "max_completion_tokens": "max_output_tokens"}


def chat_request(body: ResponsesRequest) -> ChatCompletionRequest:
    """The chat request of a Responses request.

    Raises:
        RequestError: an item of the input that is not served; names it.
    """
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": _messages(body),
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "stream": body.stream,
        "stream_options": body.stream_options,
        "truncation": body.truncation,
        "parallel_tool_calls": body.parallel_tool_calls,
        "tools": [
            {"type": "function", "function": tool.model_dump(exclude={"type"})}
            for tool in body.tools
        ],
        "response_format": _format(body),
    }
    if body.tools or body.tool_choice != "auto":
        fields["tool_choice"] = _choice(body)
    if body.top_logprobs or _LOGPROBS in body.include:
        fields |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    return ChatCompletionRequest.model_validate(fields)


def renamed(error: RequestError) -> RequestError:
    """An error about the chat request, in the words of the Responses request."""
    for chat, name in _NAMES.items():
        if error.param is not None and error.param.startswith(chat):
            error.param = name + error.param.removeprefix(chat)
            error.message = error.message.replace(chat, name)
    return error


def _choice(body: ResponsesRequest) -> Any:
    choice = body.tool_choice
    if isinstance(choice, FunctionChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _format(body: ResponsesRequest) -> dict[str, Any] | None:
    form = body.text.format if body.text else None
    if form is None or form.type != "json_schema":
        return None if form is None else {"type": form.type}
    schema = {"name": form.name or "", "schema": form.schema_}
    return {"type": "json_schema", "json_schema": schema}


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    if not body.input:
        raise RequestError("The input is empty; at least one item is needed.", param="input")
    for number, item in enumerate(body.input):
        _add(messages, item, f"input[{number}]")
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        content = content_text(item.get("content"), f"{where}.content")
        messages.append({"role": item.get("role"), "content": content})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        last = messages[-1] if messages else {}
        if last.get("role") == "assistant":
            last.setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        output = content_text(item.get("output"), f"{where}.output")
        messages.append({"role": "tool", "content": output})
    else:
        raise RequestError(
            f"{where}.type is {kind!r:.100}; served are message, function_call and"
            " function_call_output.",
            param=f"{where}.type",
        )
