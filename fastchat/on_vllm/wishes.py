"""From our sampling parameters to vLLM's, and from its log-probabilities to ours.

Text stays on our side: stop strings, half characters and special tokens are seen to by
`fastchat.engine.answer`, so that an answer reads the same from either engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vllm import SamplingParams as VllmParams
from vllm.sampling_params import RequestOutputKind

from fastchat.engine.answer import Vocabulary
from fastchat.engine.base import GenerationRequest, SamplingParams, TokenLogprob
from fastchat.errors import RequestError
from fastchat.on_vllm.forms import further_wishes

_SEEDS = 2**63 - 1  # as many as travel between vLLM's processes


def refuse_adapters(request: GenerationRequest) -> None:
    """Refuses a request that names an adapter.

    Raises:
        RequestError: there are none.
    """
    if request.adapter is not None:
        raise RequestError(
            f"No adapter named {request.adapter} is loaded; with vLLM there are none.",
            param="model",
        )


def vllm_params(params: SamplingParams, end_ids: Collection[int], budget: int) -> VllmParams:
    """A request's parameters as vLLM takes them.

    Args:
        params: checked.
        end_ids: tokens of the vocabulary that end the answer, the model's own included unless
            they are ignored.
        budget: tokens to generate at most.
    """
    certain = params.greedy or params.top_p == 0.0  # the most likely token alone is left
    further = further_wishes(params, sorted(end_ids))
    return VllmParams(
        temperature=0.0 if certain else params.temperature,
        top_p=1.0 if certain else params.top_p,
        top_k=0 if certain else params.top_k,
        min_p=0.0 if certain else params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        logit_bias=dict(params.logit_bias) or None,
        # A form may end before: then it alone says when.
        min_tokens=params.min_new_tokens if further is None else 0,
        max_tokens=budget,
        stop_token_ids=sorted(end_ids),
        ignore_eos=True,  # it is among the stop tokens, if it is one
        seed=None if params.seed is None else params.seed & _SEEDS,
        logprobs=params.logprobs,
        prompt_logprobs=params.prompt_logprobs,
        extra_args=further,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def token_logprobs(
    tokens: Sequence[int],
    entries: Sequence[Mapping[int, Any] | None] | None,
    alternatives: int | None,
    vocabulary: Vocabulary,
) -> list[tuple[TokenLogprob, ...]]:
    """What vLLM tells of tokens: for each one entry, or none where it was not asked for.

    Args:
        tokens: generated, or of the prompt.
        entries: for each, log-probabilities by token with their ranks; None for the first
            token of a prompt, which follows nothing.
        alternatives: most likely tokens to name; None if nothing was asked for.
        vocabulary: of the model.
    """
    if alternatives is None or entries is None:
        return [()] * len(tokens)
    return [
        (_named(token, entry, alternatives, vocabulary),)
        for token, entry in zip(tokens, entries, strict=True)
    ]


def _named(
    token: int, entry: Mapping[int, Any] | None, alternatives: int, vocabulary: Vocabulary
) -> TokenLogprob:
    if entry is None:
        return vocabulary.logprob(token, None)
    best = sorted(entry.items(), key=lambda item: item[1].rank)[:alternatives]
    top = [(other, found.logprob) for other, found in best]
    return vocabulary.logprob(token, entry[token].logprob, top)
