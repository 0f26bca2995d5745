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
class Grammar:
    """What an answer has to look like; every token that cannot lead there is ruled out.

    Attributes:
        kind: "json" is any JSON value; "json_schema" one that the schema allows; "regex"
            a regular expression over the whole answer; "choice" one of several strings;
            "ebnf" a context-free grammar in Lark's notation.
        text: the schema as JSON, the expression, the choices as a JSON list, the grammar;
            empty for "json".
    """

    kind: Literal["json", "json_schema", "regex", "choice", "ebnf"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request is sampled. One meaning everywhere, whatever the engine.

    Attributes:
        temperature: divides the logits; below 1e-5 means greedy.
        top_p: keep the smallest set of tokens whose mass reaches this; 1.0 is off.
        top_k: keep the k most likely tokens; -1 is off.
        min_p: keep tokens at least this share of the most likely one's probability; 0.0 is off.
        repetition_penalty: Keskar et al. 2019 (CTRL), over prompt and answer; 1.0 is off.
        presence_penalty, frequency_penalty: OpenAI's, over the answer only; 0.0 is off.
        logit_bias: token id -> value added to its logit.
        no_repeat_ngram: never complete a run of this many tokens that the prompt or the answer
            holds already; 0 is off.
        grammar: what the answer has to look like; None is free text.
        min_new_tokens: tokens to generate before the answer may end.
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
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    no_repeat_ngram: int = 0
    grammar: Grammar | None = None
    min_new_tokens: int = 0
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
        adapter: name of the LoRA adapter to answer with; None is the base model.
        priority: requests of a lower number are admitted first.
        deadline_s: seconds after which a request that still waits is given up; None waits
            for as long as it takes.
        cache_salt: requests share computed prefixes only with others of the same salt.
    """

    prompt_ids: Sequence[int]
    sampling: SamplingParams = SamplingParams()
    request_id: str = ""
    adapter: str | None = None
    priority: int = 0
    deadline_s: float | None = None
    cache_salt: str = ""


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
        cached_tokens: of the prompt, whose computed beginning was found.
        queued_s: how long the request waited until its prompt was begun.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0
    queued_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Load of an engine at one moment, and what it has done since it was made.

    Attributes:
        running, waiting: requests now.
        cache_usage: share of the cache's room that running requests hold, 0 to 1.
        prompt_tokens, generated_tokens: of all requests so far.
        prefix_tokens, prefix_hit_tokens: prompt tokens looked up in the prefix cache, and
            those that were found there.
        preemptions: times that a request was set back to make room for others.
        drafted_tokens, accepted_tokens: guessed by prompt lookup, and right.
    """

    running: int = 0
    waiting: int = 0
    cache_usage: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_tokens: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


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
            RequestError: an empty prompt, a sampling value out of range, or an adapter that
                is not loaded.
            OverloadedError: too many requests wait already.
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

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the loaded adapters, which requests may ask for."""
        ...

    async def load_adapter(self, name: str, folder: str) -> None:
        """Loads a LoRA adapter, so that requests may name it; others go on meanwhile.

        Raises:
            RequestError: the name is taken, or this engine serves no adapters.
            CheckpointError: no adapter there, or another model's.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Takes an adapter out. Requests that have begun with it are completed with it.

        Raises:
            RequestError: there is none of that name.
        """
        ...

    async def close(self) -> None:
        """Aborts what runs and frees the model."""
        ...
