"""The bodies of the OpenAI-compatible API, under the class names FastChat's users import.

Knows what a body may hold, not what is done with it. A field that would change the answer
and is not served is refused by name; OpenAI's bookkeeping fields are accepted and unused.
A null field is as good as an absent one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastchat.errors import RequestError

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def random_id(prefix: str) -> str:
    """An id as OpenAI's objects have, such as `cmpl-` and 22 letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(22))


def _now() -> int:
    return int(time.time())


BOOKKEEPING_FIELDS = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Fields for OpenAI's own accounts and caches: no answer depends on them here."""

_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
    "use_beam_search": (False,),
    "reasoning_effort": ("none",),
}
"""Values at which fields that are not served would change nothing: accepted."""


class OpenAIRequest(BaseModel):
    """Base of the request bodies.

    Raises (when validated):
        RequestError: a field that is not served, or an unknown one; names it.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_served(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kept = {}
        for name, value in values.items():
            if value is None:
                continue
            if name in cls.model_fields:
                kept[name] = value
            elif name in _WITHOUT_EFFECT and value not in _WITHOUT_EFFECT[name]:
                raise RequestError(
                    f"The field {name!r} is not served here and would change the answer.",
                    hint="Leave it out.",
                    param=name,
                )
            elif name not in BOOKKEEPING_FIELDS and name not in _WITHOUT_EFFECT:
                raise RequestError(
                    f"There is no request field named {name!r}.",
                    hint=f"Known fields: {', '.join(sorted(cls.model_fields))}.",
                    param=str(name),
                )
        return kept


class ErrorResponse(BaseModel):
    """FastChat's own error body."""

    object: str = "error"
    message: str
    code: int


class ModelPermission(BaseModel):
    """What may be done with a model."""

    id: str = Field(default_factory=lambda: random_id("modelperm-"))
    object: str = "model_permission"
    created: int = Field(default_factory=_now)
    allow_create_engine: bool = False
    allow_sampling: bool = True
    allow_logprobs: bool = True
    allow_search_indices: bool = True
    allow_view: bool = True
    allow_fine_tuning: bool = False
    organization: str = "*"
    group: str | None = None
    is_blocking: bool = False


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: str = "model"
    created: int = Field(default_factory=_now)
    owned_by: str = "fastchat"
    root: str | None = None
    parent: str | None = None
    permission: list[ModelPermission] = []


class ModelList(BaseModel):
    """The models that are served."""

    object: str = "list"
    data: list[ModelCard] = []


class UsageInfo(BaseModel):
    """Token counts."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int | None = 0


class LogProbs(BaseModel):
    """Log-probabilities of a completion, in parallel lists."""

    text_offset: list[int] = Field(default_factory=list)
    token_logprobs: list[float | None] = Field(default_factory=list)
    tokens: list[str] = Field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = Field(default_factory=list)


class StreamOptions(BaseModel):
    """How a stream is told.

    Attributes:
        include_usage: end with a chunk that holds the token counts and no choices.
        include_obfuscation: accepted; nothing is obfuscated here.
    """

    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingRequest(OpenAIRequest):
    """The fields that chat and completions share."""

    model: str
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = -1
    n: int = 1
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    user: str | None = None


class ChatCompletionRequest(SamplingRequest):
    """The body of `/v1/chat/completions`.

    Attributes:
        messages: a list of role and content, or a text that no template is put around.
        max_tokens, max_completion_tokens: two names of one wish; null is the rest of the
            context.
    """

    messages: str | list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None


class ChatTokenLogprob(BaseModel):
    """Log-probability of one token; `bytes` is null where a token is part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class ChatTokenLogprobs(ChatTokenLogprob):
    """The same, with the most likely alternatives."""

    top_logprobs: list[ChatTokenLogprob] = []


class ChatLogProbs(BaseModel):
    """Log-probabilities of a chat answer."""

    content: list[ChatTokenLogprobs] | None = None


class ChatMessage(BaseModel):
    """A message of an answer."""

    role: str
    content: str


class ChatCompletionResponseChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogProbs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionResponse(BaseModel):
    """The answer of `/v1/chat/completions`."""

    id: str = Field(default_factory=lambda: random_id("chatcmpl-"))
    object: str = "chat.completion"
    created: int = Field(default_factory=_now)
    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo


class DeltaMessage(BaseModel):
    """What is new of a message."""

    role: str | None = None
    content: str | None = None


class ChatCompletionResponseStreamChoice(BaseModel):
    """What is new of one answer."""

    index: int
    delta: DeltaMessage
    logprobs: ChatLogProbs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionStreamResponse(BaseModel):
    """One event of a chat stream."""

    id: str = Field(default_factory=lambda: random_id("chatcmpl-"))
    object: str = "chat.completion.chunk"
    created: int = Field(default_factory=_now)
    model: str
    choices: list[ChatCompletionResponseStreamChoice]
    usage: UsageInfo | None = None


class TokenCheckRequestItem(BaseModel):
    """A prompt, and the tokens that are to follow it."""

    model: str
    prompt: str
    max_tokens: int


class TokenCheckRequest(BaseModel):
    """The body of `/api/v1/token_check`."""

    prompts: list[TokenCheckRequestItem]


class TokenCheckResponseItem(BaseModel):
    """Whether a prompt and its answer fit the context."""

    fits: bool
    tokenCount: int  # noqa: N815 (the name on the wire)
    contextLength: int  # noqa: N815 (the name on the wire)


class TokenCheckResponse(BaseModel):
    """The answer of `/api/v1/token_check`."""

    prompts: list[TokenCheckResponseItem]


class EmbeddingsRequest(OpenAIRequest):
    """The body of `/v1/embeddings`."""

    model: str | None = None
    engine: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class EmbeddingsResponse(BaseModel):
    """The answer of `/v1/embeddings`."""

    object: str = "list"
    data: list[dict[str, Any]]
    model: str
    usage: UsageInfo


class CompletionRequest(SamplingRequest):
    """The body of `/v1/completions`; a prompt may be text or token ids, one or several.

    Attributes:
        best_of: answers generated per prompt, of which the `n` most likely are returned.
    """

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = 16
    logprobs: int | None = None
    echo: bool = False
    best_of: int | None = None


class CompletionResponseChoice(BaseModel):
    """One completion."""

    index: int
    text: str
    logprobs: LogProbs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class CompletionResponse(BaseModel):
    """The answer of `/v1/completions`."""

    id: str = Field(default_factory=lambda: random_id("cmpl-"))
    object: str = "text_completion"
    created: int = Field(default_factory=_now)
    model: str
    choices: list[CompletionResponseChoice]
    usage: UsageInfo


class CompletionResponseStreamChoice(BaseModel):
    """What is new of one completion."""

    index: int
    text: str
    logprobs: LogProbs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class CompletionStreamResponse(BaseModel):
    """One event of a completion stream."""

    id: str = Field(default_factory=lambda: random_id("cmpl-"))
    object: str = "text_completion"
    created: int = Field(default_factory=_now)
    model: str
    choices: list[CompletionResponseStreamChoice]
    usage: UsageInfo | None = None
