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
from fastchat.serve.openai.messages import plain_messages, render_prompt

Params = dict[str, Any]

_SAME_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)


def chat_params(request: ChatCompletionRequest, template: Conversation) -> Params:
    """What a worker is sent for a chat request.

    Raises:
        RequestError: see `plain_messages`.
    """
    params = _sampling(request, template)
    if isinstance(request.messages, str):
        params["prompt"] = request.messages
    else:
        params["messages"] = plain_messages(request.messages)
        params["prompt"] = render_prompt(template, params["messages"])
    asked = request.max_completion_tokens or request.max_tokens
    params["max_new_tokens"] = asked
    if asked is None:
        params["unset"].append("max_new_tokens")
    if request.logprobs:
        params["logprobs"] = request.top_logprobs or 0
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
    return {
        "model": request.model,
        **{name: getattr(request, name) for name in _SAME_NAMES},
        "unset": [name for name in _SAME_NAMES if name not in request.model_fields_set],
        "logit_bias": request.logit_bias or {},
        "stop": list(dict.fromkeys([*_listed(request.stop), *_listed(template.stop_str)])),
        "stop_token_ids": template.stop_token_ids,
        "seed": request.seed,
        "logprobs": None,
        "echo": False,
    }


def _listed(stop: str | Sequence[str] | None) -> list[str]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else list(stop)
