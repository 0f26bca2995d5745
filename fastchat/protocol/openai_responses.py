"""The body of `/v1/responses`: the stateless part of OpenAI's Responses API, text only."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from fastchat.protocol.openai_requests import OpenAIRequest, StreamOptions


class TextFormat(BaseModel):
    """What the answer has to look like; a schema lies beside its name here."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(BaseModel):
    """How the answer's text is to be."""

    model_config = ConfigDict(extra="forbid")

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(BaseModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(BaseModel):
    """The one function that has to be called."""

    type: Literal["function"]
    name: str


class Reasoning(BaseModel):
    """Accepted where it asks for none: Yuan2 does not reason before it answers."""

    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None


Includable = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class ResponsesRequest(OpenAIRequest):
    """The body of `/v1/responses`.

    Attributes:
        input: a question, or items: messages, calls and their results.
        store: accepted; nothing is stored, so an answer cannot be referred to later.
        include: "message.output_text.logprobs" is served.
    """

    refused: ClassVar[frozenset[str]] = frozenset(
        {
            "background_options",
            "context_management",
            "conversation",
            "image",
            "max_tool_calls",
            "previous_response_id",
            "prompt",
        }
    )

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    text: TextConfig | None = None
    tools: list[FunctionTool] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice = "auto"
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"
    reasoning: Reasoning | None = None
    include: list[Includable] = Field(default_factory=list)
    metadata: dict[str, str] = Field(default_factory=dict)
    background: Literal[False] = False
    store: bool = False
    user: str | None = None


class ResponseObject(BaseModel):
    """The answer of `/v1/responses`, and what is in its events; its items are as OpenAI's."""

    id: str
    object: Literal["response"]
    status: Literal["completed", "incomplete", "in_progress", "failed"]
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None
