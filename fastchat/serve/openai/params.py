"""From API requests to a worker's parameters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastchat.conversation import Conversation
from fastchat.protocol.openai_api_protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    SamplingRequest,
)
from fastchat.serve.openai.grammars import asked_grammar
from fastchat.serve.openai.messages import plain_messages, render_prompt
from fastchat.serve.openai.tool_prompts import with_tools
from fastchat.serve.openai.tool_use import ToolUse, chat_grammar

Params = dict[str, Any]

_SAME_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)

_OTHER_NAMES = {
    "no_repeat_ngram_size": "no_repeat_ngram",
    "min_tokens": "min_new_tokens",
    "ignore_eos": "ignore_eos",
    "priority": "priority",
    "cache_salt": "cache_salt",
}
"""Fields that are sent only if the client sent them, so that other workers see no new ones."""

_QUIET_INTERVAL = 32
"""Tokens between two chunks that nobody waits for."""


def chat_messages(request: ChatCompletionRequest, use: ToolUse) -> list[dict[str, str]] | None:
    """The messages as plain text, tools included; None where the request holds a raw prompt.

    Raises:
        RequestError: see `plain_messages`.
    """
    if isinstance(request.messages, str):
        return None
    messages = plain_messages(request.messages)
    return with_tools(messages, use.text) if use.functions else messages


def chat_params(
    request: ChatCompletionRequest,
    template: Conversation,
    *,
    use: ToolUse | None = None,
    messages: list[dict[str, str]] | None = None,
) -> Params:
    """What a worker is sent for a chat request.

    Args:
        request: it.
        template: the model's.
        use: what it says about tools.
        messages: of `chat_messages`, if they are there already.

    Raises:
        RequestError: see `plain_messages` and `chat_grammar`.
    """
    use = use or ToolUse()
    params = _sampling(request, template)
    messages = messages or chat_messages(request, use)
    if messages is None:
        params["prompt"] = request.messages
    else:
        params["messages"] = messages
        params["prompt"] = render_prompt(template, messages)
    asked = request.max_completion_tokens or request.max_tokens
    params["max_new_tokens"] = asked
    if asked is None:
        params["unset"].append("max_new_tokens")
    if request.logprobs:
        params["logprobs"] = request.top_logprobs or 0
    if request.truncation == "auto":
        params["truncation"] = "auto"
    grammar = chat_grammar(request, use)
    if grammar is not None:
        params["grammar"] = grammar
    return params


def completion_params(
    request: CompletionRequest, prompt: str | list[int], template: Conversation
) -> Params:
    """What a worker is sent for one prompt of a completion request."""
    params = _sampling(request, template)
    params["prompt" if isinstance(prompt, str) else "token_ids"] = prompt
    params["max_new_tokens"] = request.max_tokens
    if "max_tokens" not in request.model_fields_set:
        params["unset"].append("max_new_tokens")
    params["logprobs"] = request.logprobs
    params["echo"] = request.echo
    grammar = asked_grammar(request, request.response_format)
    if grammar is not None:
        params["grammar"] = grammar
    return params


def variants(params: Params, count: int, request_id: str) -> list[Params]:
    """The same parameters for several answers, which differ by their seeds if one is given."""
    seed = params["seed"]
    return [
        {
            **params,
            "request_id": request_id if count == 1 else f"{request_id}-{number}",
            "seed": None if seed is None else seed + number,
        }
        for number in range(count)
    ]


def _sampling(request: SamplingRequest, template: Conversation) -> Params:
    ends = [] if request.ignore_eos else template.stop_token_ids or []
    params = {
        "model": request.model,
        **{name: getattr(request, name) for name in _SAME_NAMES},
        "unset": [name for name in _SAME_NAMES if name not in request.model_fields_set],
        "logit_bias": request.logit_bias or {},
        "stop": list(dict.fromkeys([*_listed(request.stop), *_listed(template.stop_str)])),
        "stop_token_ids": [*(request.stop_token_ids or []), *ends],
        "seed": request.seed,
        "logprobs": None,
        "echo": False,
        "deltas": True,
    }
    if not request.stream:
        params["stream_interval"] = _QUIET_INTERVAL
    sent = request.model_fields_set & _OTHER_NAMES.keys()
    return params | {_OTHER_NAMES[name]: getattr(request, name) for name in sent}


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)
