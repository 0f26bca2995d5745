"""Answers as `/v1/responses` tells them: an object of items, or events that build it. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from fastchat.protocol.openai_requests import random_id
from fastchat.protocol.openai_responses import ResponsesRequest
from fastchat.protocol.worker import ChunkLogprobs, Usage
from fastchat.serve.openai.logprobs import chat_logprobs
from fastchat.serve.openai.tool_calls import CallNews

Item = dict[str, Any]


class ResponseWriter:
    """Writes down one answer.

    Attributes:
        output: the items so far.
    """

    def __init__(self, answer_id: str, body: ResponsesRequest) -> None:
        self.output: list[Item] = []
        self._body = body
        self._id = answer_id
        self._created = int(time.time())
        self._sequence = 0
        self._open: Item | None = None

    def response(self, status: str, usage: Usage | None = None) -> dict[str, Any]:
        """The answer as an object, as far as it is there."""
        body = self._body
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "model": body.model,
            "output": self.output,
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": 0.7 if body.temperature is None else body.temperature,
            "text": self._text_config(),
            "tool_choice": (
                body.tool_choice
                if isinstance(body.tool_choice, str)
                else body.tool_choice.model_dump()
            ),
            "tools": [_tool(tool.model_dump()) for tool in body.tools],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": body.truncation,
            "usage": None if usage is None else _usage(usage),
            "user": body.user,
        }

    def _text_config(self) -> dict[str, Any]:
        form = self._body.text.format if self._body.text else None
        if form is None:
            return {"format": {"type": "text"}}
        return {"format": form.model_dump(by_alias=True, exclude_none=True)}

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event, with its place in the sequence."""
        body = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        told = json.dumps(body, ensure_ascii=False)
        return f"event: {kind}\ndata: {told}\n\n".encode()

    def text(self, text: str, logprobs: ChunkLogprobs | None) -> Iterator[bytes]:
        """Further text of a message, which is begun if none is open."""
        if self._open is None or self._open["type"] != "message":
            yield from self.close()
            part: Item = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._begin(
                {"id": random_id("msg_"), "type": "message", "role": "assistant", "content": []}
            )
            assert self._open is not None
            self._open["content"].append(part)
            yield self.event("response.content_part.added", **self._place(), part=part)
        assert self._open is not None
        part = self._open["content"][0]
        told = _logprobs(logprobs, self._body.top_logprobs or 0)
        part["text"] += text
        part["logprobs"] += told
        yield self.event("response.output_text.delta", **self._place(), delta=text, logprobs=told)

    def call(self, news: CallNews) -> Iterator[bytes]:
        """The beginning of a call, or further arguments of the one that is open."""
        if news.name is not None:
            yield from self.close()
            yield self._begin(
                {
                    "id": random_id("fc_"),
                    "type": "function_call",
                    "call_id": news.call_id,
                    "name": news.name,
                    "arguments": "",
                }
            )
        if news.arguments and self._open is not None:
            self._open["arguments"] += news.arguments
            place = self._place(content=False)
            yield self.event(
                "response.function_call_arguments.delta", **place, delta=news.arguments
            )

    def close(self, status: str = "completed") -> Iterator[bytes]:
        """Ends the item that is open, if one is."""
        item = self._open
        if item is None:
            return
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            told = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self.event("response.output_text.done", **self._place(), **told)
            yield self.event("response.content_part.done", **self._place(), part=part)
        else:
            place = self._place(content=False)
            told = {"name": item["name"], "arguments": item["arguments"]}
            yield self.event("response.function_call_arguments.done", **place, **told)
        yield self.event("response.output_item.done", output_index=len(self.output) - 1, item=item)
        self._open = None

    def _begin(self, item: Item) -> bytes:
        item["status"] = "in_progress"
        self.output.append(item)
        self._open = item
        return self.event(
            "response.output_item.added", output_index=len(self.output) - 1, item=item
        )

    def _place(self, *, content: bool = True) -> dict[str, Any]:
        assert self._open is not None
        place = {"item_id": self._open["id"], "output_index": len(self.output) - 1}
        return {**place, "content_index": 0} if content else place


def _tool(tool: Item) -> Item:
    return {**tool, "parameters": tool["parameters"] or {}, "strict": bool(tool["strict"])}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage.get("cached_tokens", 0),
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _logprobs(lists: ChunkLogprobs | None, alternatives: int) -> list[Any]:
    found = chat_logprobs(lists, alternatives)
    if found is None:
        return []
    for token in found["content"]:
        for each in (token, *token["top_logprobs"]):
            each["bytes"] = each["bytes"] or []
    content: list[Any] = found["content"]
    return content
