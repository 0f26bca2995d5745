"""What a request may ask of the sampler. Pure: knows no torch."""

from __future__ import annotations

import math

from fastchat.engine.base import SamplingParams
from fastchat.errors import RequestError

MAX_LOGPROBS = 1024
"""Alternatives per token, at most."""

MAX_NGRAM = 1024
"""Longest run that no_repeat_ngram may name."""

MAX_STOPS = 4096
"""Stop strings of one request, at most."""

MAX_STOP_CHARACTERS = 4_000_000
"""Of all stop strings of one request together."""

_INFINITY = float("inf")

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0.0, _INFINITY),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    ("no_repeat_ngram", 0, MAX_NGRAM),
    ("min_new_tokens", 0, _INFINITY),
    ("logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs", 0, MAX_LOGPROBS),
)


def check(params: SamplingParams, vocab_size: int) -> None:
    """Refuses values that cannot be sampled with.

    A grammar is checked where it is compiled.

    Raises:
        RequestError: names the value, what was given and what is allowed.
    """
    for name, low, high in _RANGES:
        value = getattr(params, name)
        if value is not None and not low <= value <= high:
            upper = f" to {high:g}" if high != _INFINITY else " or more"
            raise RequestError(f"{name} is {value}; allowed is {low:g}{upper}.", param=name)
    if not 0 < params.repetition_penalty < _INFINITY:
        raise RequestError(
            f"repetition_penalty is {params.repetition_penalty}; it has to be above 0.",
            param="repetition_penalty",
        )
    if params.temperature == _INFINITY:
        raise RequestError("temperature is infinite; a number is needed.", param="temperature")
    if params.top_k < -1 or params.top_k == 0:
        raise RequestError(
            f"top_k is {params.top_k}; allowed is -1 (off) or at least 1.", param="top_k"
        )
    _check_length(params)
    _check_bias(params, vocab_size)
    _check_stops(params)


def _check_length(params: SamplingParams) -> None:
    longest = params.max_new_tokens
    if longest is None:
        return
    if longest < 1:
        raise RequestError(
            f"max_new_tokens is {longest}; at least 1 is needed.", param="max_new_tokens"
        )
    if params.min_new_tokens > longest:
        raise RequestError(
            f"min_new_tokens is {params.min_new_tokens}, but max_new_tokens is {longest};"
            " the least cannot exceed the most.",
            param="min_new_tokens",
        )


def _check_bias(params: SamplingParams, vocab_size: int) -> None:
    for token, value in params.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise RequestError(
                f"logit_bias names token {token}; ids go from 0 to {vocab_size - 1}.",
                param="logit_bias",
            )
        if math.isnan(value) or value == _INFINITY:
            raise RequestError(
                f"logit_bias of token {token} is {value}; a number is needed.",
                param="logit_bias",
            )


def _check_stops(params: SamplingParams) -> None:
    if len(params.stop) > MAX_STOPS:
        raise RequestError(
            f"stop lists {len(params.stop)} strings; at most {MAX_STOPS} are allowed.",
            param="stop",
        )
    characters = sum(map(len, params.stop))
    if characters > MAX_STOP_CHARACTERS:
        raise RequestError(
            f"The stop strings hold {characters} characters; at most {MAX_STOP_CHARACTERS}"
            " are allowed.",
            param="stop",
        )
