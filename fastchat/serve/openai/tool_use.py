"""Which tools a chat request offers, and whether it has to use them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fastchat.errors import RequestError
from fastchat.protocol.openai_api_protocol import ChatCompletionRequest
from fastchat.protocol.openai_tools import FunctionDefinition, NamedTool
from fastchat.serve.openai.grammars import Grammar, asked_grammar
from fastchat.serve.openai.tool_grammar import call_grammar
from fastchat.serve.openai.tool_prompts import tools_text


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a request says about tools.

    Attributes:
        functions: that may be called; empty where none may.
        must_call: an answer has to be calls.
        named: one function was named, which answers with `stop` as OpenAI's do.
        several: an answer may make several calls.
    """

    functions: tuple[FunctionDefinition, ...] = ()
    must_call: bool = False
    named: bool = False
    several: bool = True

    @property
    def names(self) -> frozenset[str]:
        """Names of the functions."""
        return frozenset(function.name for function in self.functions)

    @property
    def text(self) -> str:
        """What the model is told of them; "" if there are none."""
        if not self.functions:
            return ""
        return tools_text(self.functions, must_call=self.must_call)


def tool_use(request: ChatCompletionRequest) -> ToolUse:
    """Reads tools and tool_choice.

    Raises:
        RequestError: a choice without tools, or of one that is not there; names that are not
            unique; tools without messages.
    """
    functions = tuple(tool.function for tool in request.tools)
    names = [function.name for function in functions]
    choice = request.tool_choice
    if isinstance(choice, NamedTool) or choice == "required":
        if not functions:
            raise RequestError(
                "tool_choice asks for a call, but there are no tools.", param="tool_choice"
            )
        if isinstance(request.messages, str):
            raise RequestError("Tools need messages as a list.", param="tools")
    if len(set(names)) < len(names):
        raise RequestError("Two tools have the same function name.", param="tools")
    if choice == "none" or not functions or isinstance(request.messages, str):
        return ToolUse()
    if isinstance(choice, NamedTool):
        wanted = choice.function.name
        if wanted not in names:
            raise RequestError(
                f"tool_choice names {wanted!r}; the tools are {', '.join(names)}.",
                param="tool_choice",
            )
        return ToolUse((functions[names.index(wanted)],), must_call=True, named=True, several=False)
    return ToolUse(functions, choice == "required", several=request.parallel_tool_calls)


def chat_grammar(request: ChatCompletionRequest, use: ToolUse) -> Grammar | None:
    """What a chat answer has to look like, calls included.

    Raises:
        RequestError: a form that cannot be had beside calls.
    """
    asked = asked_grammar(request, request.response_format)
    if not use.functions:
        return asked
    if asked is not None and asked["kind"] != "json_schema":
        raise RequestError(
            "Tools cannot be combined with a regular expression, choices or a grammar.",
            hint="Send tool_choice 'none', or a JSON schema.",
            param="tools",
        )
    schema = None if asked is None else asked["text"]
    return call_grammar(
        use.functions, several=use.several, must_call=use.must_call, answer_schema=schema
    )
