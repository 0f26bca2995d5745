"""The bodies of the OpenAI-compatible API, under the class names FastChat's users import.

What requests have in common is in `openai_requests`, tools are in `openai_tools`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from fastchat.protocol.openai_requests import (
    BOOKKEEPING_FIELDS,
    OpenAIRequest,
    ResponseFormat,
    SamplingRequest,
    StreamOptions,
    UsageInfo,
    random_id,
    seconds_now,
)
from fastchat.protocol.openai_tools import Tool, ToolCall, ToolChoice

__all__ = [
    "BOOKKEEPING_FIELDS",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatCompletionResponseStreamChoice",
    "ChatCompletionStreamResponse",
    "ChatLogProbs",
    "ChatMessage",
    "ChatTokenLogprob",
    "ChatTokenLogprobs",
    "CompletionRequest",
    "CompletionResponse",
    "CompletionResponseChoice",
    "CompletionResponseStreamChoice",
    "CompletionStreamResponse",
    "DeltaMessage",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "ErrorResponse",
    "FinishReason",
    "LogProbs",
    "ModelCard",
    "ModelList",
    "ModelPermission",
    "OpenAIRequest",
    "SamplingRequest",
    "StreamOptions",
    "TokenCheckRequest",
    "TokenCheckRequestItem",
    "TokenCheckResponse",
    "TokenCheckResponseItem",
    "UsageInfo",
    "random_id",
]

FinishReason = Literal["stop", "length", "tool_calls"]


class ErrorResponse(BaseModel):
    """FastChat's own error body."""

    object: str = "error"
    message: str
    code: int


class ModelPermission(BaseModel):
    """What may be done with a model."""

    id: str = Field(default_factory=lambda: random_id("modelperm-"))
    object: str = "model_permission"
    created: int = Field(default_factory=seconds_now)
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
    created: int = Field(default_factory=seconds_now)
    owned_by: str = "fastchat"
    root: str | None = None
    parent: str | None = None
    permission: list[ModelPermission] = []


class ModelList(BaseModel):
    """The models that are served."""

    object: str = "list"
    data: list[ModelCard] = []


class LogProbs(BaseModel):
    """Log-probabilities of a completion, in parallel lists."""

    text_offset: list[int] = Field(default_factory=list)
    token_logprobs: list[float | None] = Field(default_factory=list)
    tokens: list[str] = Field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = Field(default_factory=list)


class ChatCompletionRequest(SamplingRequest):
    """The body of `/v1/chat/completions`.

    Attributes:
        messages: a list of role and content, or a text that no template is put around.
        max_tokens, max_completion_tokens: two names of one wish; null is the rest of the
            context.
        parallel_tool_calls: whether an answer may make several calls.
        truncation: "auto" drops the oldest turns that do not fit into the context, where
            "disabled" is an error.
    """

    messages: str | list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"


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
    """A message of an answer; the content is null if it is nothing but calls."""

    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=lambda value: value is None)


class ChatCompletionResponseChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogProbs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionResponse(BaseModel):
    """The answer of `/v1/chat/completions`."""

    id: str = Field(default_factory=lambda: random_id("chatcmpl-"))
    object: str = "chat.completion"
    created: int = Field(default_factory=seconds_now)
    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo


class DeltaMessage(BaseModel):
    """What is new of a message."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatCompletionResponseStreamChoice(BaseModel):
    """What is new of one answer."""

    index: int
    delta: DeltaMessage
    logprobs: ChatLogProbs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionStreamResponse(BaseModel):
    """One event of a chat stream."""

    id: str = Field(default_factory=lambda: random_id("chatcmpl-"))
    object: str = "chat.completion.chunk"
    created: int = Field(default_factory=seconds_now)
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

    refused: ClassVar[frozenset[str]] = frozenset({"dimensions"})

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
    response_format: ResponseFormat | None = None


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
    created: int = Field(default_factory=seconds_now)
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
    created: int = Field(default_factory=seconds_now)
    model: str
    choices: list[CompletionResponseStreamChoice]
    usage: UsageInfo | None = None
