"""Which values a request's fields may hold. Pure."""

from __future__ import annotations

from fastchat.errors import RequestError
from fastchat.protocol.openai_api_protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    SamplingRequest,
)

_RANGES: dict[str, tuple[float, float | None]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "no_repeat_ngram_size": (0, 1024),
    "min_tokens": (0, None),
    "priority": (-(2**31), 2**31 - 1),
    "seed": (-(2**63), 2**63 - 1),
    "n": (1, 128),
    "max_tokens": (1, None),
    "max_completion_tokens": (1, None),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
    "best_of": (1, 128),
}


_MOST_STOPS = 16


def check_sampling(request: SamplingRequest) -> None:
    """Checks the fields that chat and completions share, and their ranges.

    Raises:
        RequestError: names the field, the value and what is allowed.
    """
    for name in type(request).model_fields:
        value = getattr(request, name)
        if name not in _RANGES or value is None:
            continue
        low, high = _RANGES[name]
        if not (low <= value and (high is None or value <= high)):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise RequestError(f"{name} is {value}; allowed is {allowed}.", param=name)
    if request.top_k != -1 and request.top_k < 1:
        raise RequestError(
            f"top_k is {request.top_k}; allowed is -1 (off) or at least 1.", param="top_k"
        )
    if not request.repetition_penalty > 0:
        raise RequestError(
            f"repetition_penalty is {request.repetition_penalty}; allowed is more than 0.",
            param="repetition_penalty",
        )
    for token, bias in (request.logit_bias or {}).items():
        if token < 0 or not -100 <= bias <= 100:
            raise RequestError(
                f"logit_bias holds {token}: {bias}; allowed are biases from -100 to 100 of token"
                " ids.",
                param="logit_bias",
            )
    for token in request.stop_token_ids or []:
        if not 0 <= token < 2**31:
            raise RequestError(
                f"stop_token_ids holds {token}, which is no token id.", param="stop_token_ids"
            )
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > _MOST_STOPS:
        raise RequestError(
            f"stop holds {len(stops)} strings; at most {_MOST_STOPS} are allowed.", param="stop"
        )
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options has no meaning without stream.", param="stream_options")


def check_chat(request: ChatCompletionRequest) -> None:
    """Checks a chat request.

    Raises:
        RequestError: see `check_sampling`.
    """
    check_sampling(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise RequestError(
            f"max_tokens is {request.max_tokens} and max_completion_tokens is"
            f" {request.max_completion_tokens}; they mean the same, send one.",
            param="max_tokens",
        )


def check_completion(request: CompletionRequest) -> None:
    """Checks a completion request.

    Raises:
        RequestError: see `check_sampling`.
    """
    check_sampling(request)
    if request.logprobs is not None and not 0 <= request.logprobs <= 20:
        raise RequestError(
            f"logprobs is {request.logprobs}; allowed is from 0 to 20.", param="logprobs"
        )
    best_of = request.best_of
    if best_of is not None and best_of < request.n:
        raise RequestError(f"best_of is {best_of}, less than n ({request.n}).", param="best_of")
    if best_of is not None and best_of > request.n and request.stream:
        raise RequestError("best_of cannot be streamed.", param="best_of")
