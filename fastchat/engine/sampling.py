"""Picks the next token of one sequence from its logits.

Knows nothing of models, caches or text. Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fastchat.engine.base import SamplingParams
from fastchat.errors import GenerationError, RequestError

_LIMITS: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0.0, float("inf")),
    ("top_p", 0.0, 1.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
)


def check(params: SamplingParams, vocab_size: int) -> None:
    """Refuses values that cannot be sampled with.

    Raises:
        RequestError: names the value, what was given and what is allowed.
    """
    for name, low, high in _LIMITS:
        value = getattr(params, name)
        if not low <= value <= high:
            upper = f" to {high:g}" if high != float("inf") else " or more"
            raise RequestError(f"{name} is {value}; allowed is {low:g}{upper}.", param=name)
    if params.repetition_penalty <= 0:
        raise RequestError(
            f"repetition_penalty is {params.repetition_penalty}; it has to be above 0.",
            param="repetition_penalty",
        )
    if params.top_k < -1 or params.top_k == 0:
        raise RequestError(
            f"top_k is {params.top_k}; allowed is -1 (off) or at least 1.", param="top_k"
        )
    if params.max_new_tokens is not None and params.max_new_tokens < 1:
        raise RequestError(
            f"max_new_tokens is {params.max_new_tokens}; at least 1 is needed.",
            param="max_new_tokens",
        )
    wrong = [token for token in params.logit_bias if not 0 <= token < vocab_size]
    if wrong:
        raise RequestError(
            f"logit_bias names token {wrong[0]}; ids go from 0 to {vocab_size - 1}.",
            param="logit_bias",
        )


class Sampler:
    """Samples the tokens of one sequence, one after the other.

    Args:
        params: checked sampling values.
        prompt_ids: the prompt, which the repetition penalty counts too.
        device: of the logits.
    """

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], device: torch.device
    ) -> None:
        self._params = params
        self._seen = list(prompt_ids)
        self._generated: dict[int, int] = {}
        self._generator = torch.Generator(device)
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed % 2**63)
        self._penalty = LogitsProcessorList()
        if params.repetition_penalty != 1.0:
            self._penalty.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
        self._warpers = LogitsProcessorList()
        if not params.greedy:
            self._warpers.append(TemperatureLogitsWarper(params.temperature))
            if params.top_k > 0:
                self._warpers.append(TopKLogitsWarper(params.top_k))
            if params.top_p < 1.0:
                self._warpers.append(TopPLogitsWarper(params.top_p))

    def sample(self, logits: Tensor) -> int:
        """The next token.

        Args:
            logits: (V,), float32.

        Raises:
            GenerationError: the logits hold NaN.
        """
        if bool(logits.isnan().any()):
            raise GenerationError(
                "The model produced NaN logits.",
                hint="Its weights may be damaged, or too large for the chosen dtype.",
            )
        seen = torch.tensor([self._seen], device=logits.device)
        scores = self._penalty(seen, self._shifted(logits)[None])
        if self._params.greedy:
            token = int(scores.argmax())
        else:
            chances = self._warpers(seen, scores).softmax(dim=-1)
            token = int(torch.multinomial(chances[0], 1, generator=self._generator))
        self._seen.append(token)
        self._generated[token] = self._generated.get(token, 0) + 1
        return token

    def _shifted(self, logits: Tensor) -> Tensor:
        """Logits with bias, presence and frequency penalty."""
        params = self._params
        shifts = dict(params.logit_bias)
        if params.presence_penalty or params.frequency_penalty:
            for token, count in self._generated.items():
                penalty = params.presence_penalty + params.frequency_penalty * count
                shifts[token] = shifts.get(token, 0.0) - penalty
        if not shifts:
            return logits
        where = torch.tensor(list(shifts), device=logits.device)
        amounts = torch.tensor(list(shifts.values()), device=logits.device, dtype=logits.dtype)
        return logits.index_add(0, where, amounts)
