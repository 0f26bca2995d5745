"""Tools: how clients describe, choose and answer them, and how calls are told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class FunctionDefinition(BaseModel):
    """A function that the model may call.

    Attributes:
        parameters: the JSON schema of its arguments; none takes no arguments.
        strict: accepted; calls follow the schema in any case.
    """

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool, of which there is one kind here."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(BaseModel):
    """A function by its name."""

    name: str


class NamedTool(BaseModel):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class FunctionCall(BaseModel):
    """A call's function and its arguments, which are JSON as text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call that an answer makes."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
