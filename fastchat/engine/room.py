"""Whether a request fits: its tokens into the vocabulary, its length into the context. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fastchat.engine.base import GenerationRequest
from fastchat.errors import ContextOverflowError, RequestError


def answer_budget(request: GenerationRequest, vocab_size: int, context_length: int) -> int:
    """Tokens that may be generated for a request.

    Raises:
        RequestError: an empty prompt, or a token that the vocabulary does not have.
        ContextOverflowError: the prompt, or the prompt plus max_new_tokens, is too long.
    """
    size, wanted = len(request.prompt_ids), request.sampling.max_new_tokens
    if not size:
        raise RequestError("The prompt is empty; at least one token is needed.", param="prompt")
    _check_tokens(request.prompt_ids, vocab_size, "prompt")
    room = context_length - size
    if room < 1:
        raise ContextOverflowError(
            f"The prompt has {size} tokens, but the model's context is {context_length} tokens,"
            " answer included.",
            hint="Shorten the prompt.",
            param="prompt",
        )
    if wanted is not None and wanted > room:
        raise ContextOverflowError(
            f"The prompt has {size} tokens and {wanted} were asked for, but the model's context"
            f" is {context_length} tokens.",
            hint=f"Ask for at most {room} tokens, or shorten the prompt.",
            param="max_tokens",
        )
    return room if wanted is None else wanted


def check_row(row: Sequence[int], vocab_size: int, context_length: int) -> None:
    """Checks a row to embed.

    Raises:
        RequestError: it is empty, or holds a token that the vocabulary does not have.
        ContextOverflowError: it exceeds the context.
    """
    if not row:
        raise RequestError("An input to embed is empty.", param="input")
    if len(row) > context_length:
        raise ContextOverflowError(
            f"An input of {len(row)} tokens exceeds the context of {context_length} tokens.",
            param="input",
        )
    _check_tokens(row, vocab_size, "input")


def _check_tokens(tokens: Sequence[int], vocab_size: int, param: str) -> None:
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab_size:
        raise RequestError(
            f"The {param} holds token {low if low < 0 else high}; ids go from 0 to"
            f" {vocab_size - 1}.",
            param=param,
        )
