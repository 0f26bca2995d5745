"""The bodies of FastChat's own API (`/api/v1`), under the class names its users import."""

from __future__ import annotations

from fastchat.protocol.openai_api_protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    CompletionRequest,
    CompletionResponse,
    CompletionResponseChoice,
    CompletionResponseStreamChoice,
    CompletionStreamResponse,
    DeltaMessage,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ErrorResponse,
    ModelCard,
    ModelList,
    ModelPermission,
    TokenCheckRequest,
    TokenCheckRequestItem,
    TokenCheckResponse,
    TokenCheckResponseItem,
    UsageInfo,
)

__all__ = [
    "APIChatCompletionRequest",
    "APITokenCheckRequest",
    "APITokenCheckRequestItem",
    "APITokenCheckResponse",
    "APITokenCheckResponseItem",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatCompletionResponseStreamChoice",
    "ChatCompletionStreamResponse",
    "ChatMessage",
    "CompletionRequest",
    "CompletionResponse",
    "CompletionResponseChoice",
    "CompletionResponseStreamChoice",
    "CompletionStreamResponse",
    "DeltaMessage",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "ErrorResponse",
    "ModelCard",
    "ModelList",
    "ModelPermission",
    "UsageInfo",
]


class APIChatCompletionRequest(ChatCompletionRequest):
    """The body of `/api/v1/chat/completions`: a chat request (repetition_penalty included)."""


APITokenCheckRequestItem = TokenCheckRequestItem
APITokenCheckRequest = TokenCheckRequest
APITokenCheckResponseItem = TokenCheckResponseItem
APITokenCheckResponse = TokenCheckResponse
