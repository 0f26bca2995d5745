"""What every engine is: requests of token ids in, events with text and tokens out.

Knows nothing of HTTP, of chat templates or of any model. Imports no torch, so that
servers and tests can speak of engines without loading one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request is sampled. One meaning everywhere, whatever the engine.

    Attributes:
        temperature: divides the logits; below 1e-5 means greedy.
        top_p: keep the smallest set of tokens whose mass reaches this; 1.0 is off.
        top_k: keep the k most likely tokens; -1 is off.
        repetition_penalty: Keskar et al. 2019 (CTRL), over prompt and answer; 1.0 is off.
        presence_penalty, frequency_penalty: OpenAI's, over the answer only; 0.0 is off.
        logit_bias: token id -> value added to its logit.
        max_new_tokens: tokens to generate at most; None is the rest of the context.
        stop: strings that end the answer; they are not part of it.
        stop_token_ids: ids that end the answer besides the model's own end tokens.
        ignore_eos: go on past the model's own end tokens.
        seed: makes this request reproducible whatever runs beside it.
        logprobs: None for none, else the number of alternatives per generated token.
        prompt_logprobs: the same for the prompt's tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < 1e-5 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate.

    Attributes:
        prompt_ids: the prompt as token ids, at least one.
        sampling: how to sample.
        request_id: names the request in logs and errors.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams = SamplingParams()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one token and of the most likely alternatives at its place."""

    token_id: int
    text: str
    logprob: float | None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationEvent:
    """What happened since the last event of the same request.

    Attributes:
        text: new text; whole characters only; never part of a stop string.
        token_ids: new tokens, the end token included when it was generated.
        prompt_tokens, completion_tokens: totals so far.
        finish_reason: set on the last event, and only there.
        logprobs: one entry per new token, if asked for.
        prompt_logprobs: on the first event, one entry per prompt token, if asked for.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Load of an engine at one moment, in requests."""

    running: int = 0
    waiting: int = 0


class Engine(Protocol):
    """Generates answers and embeddings for one loaded model."""

    @property
    def context_length(self) -> int:
        """Prompt plus answer, in tokens, at most."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Yields events until one with a finish_reason.

        Closing the iterator (or cancelling the task that reads it) aborts the request
        and frees what it holds within one token.

        Raises:
            ContextOverflowError: the prompt, or the prompt plus max_new_tokens, is too long.
            RequestError: an empty prompt or a sampling value out of range.
            GenerationError: this request failed; the engine goes on.
        """
        ...

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One L2-normalised vector per row: the mean of the last hidden states.

        Raises:
            ContextOverflowError: a row exceeds the context.
            RequestError: an empty row.
        """
        ...

    def stats(self) -> EngineStats:
        """Current load."""
        ...

    async def close(self) -> None:
        """Aborts what runs and frees the model."""
        ...
