"""What the request bodies of the OpenAI-compatible API share.

Knows what a body may hold, not what is done with it. A field that would change the answer
and is not served is refused by name; OpenAI's bookkeeping fields are accepted and unused.
A null field is as good as an absent one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastchat.errors import RequestError

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def random_id(prefix: str) -> str:
    """An id as OpenAI's objects have, such as `cmpl-` and 22 letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(22))


def seconds_now() -> int:
    """The time that answers say they were created at."""
    return int(time.time())


BOOKKEEPING_FIELDS = frozenset(
    {
        "access_programs",
        "metadata",
        "moderation",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Fields for OpenAI's own accounts, caches and speed: no answer depends on them here."""

_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "early_stopping": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Values at which fields that are not served would change nothing: accepted."""

_INSTEAD: Mapping[str, str] = {
    "functions": "Send tools in its place.",
    "function_call": "Send tool_choice in its place.",
    "suffix": "Yuan2 cannot fill in the middle of a text.",
    "reasoning_effort": "Yuan2 does not reason before it answers; leave it out.",
}


class OpenAIRequest(BaseModel):
    """Base of the request bodies.

    Raises (when validated):
        RequestError: a field that is not served, or an unknown one; names it.
    """

    model_config = ConfigDict(extra="forbid")

    refused: ClassVar[frozenset[str]] = frozenset()
    """Fields that OpenAI's clients may send and that are not served, beside the common ones."""

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
                continue
            if name in BOOKKEEPING_FIELDS or value in _WITHOUT_EFFECT.get(name, ()):
                continue
            if name in _WITHOUT_EFFECT or name in cls.refused:
                raise RequestError(
                    f"The field {name!r} is not served here and would change the answer.",
                    hint=_INSTEAD.get(name, "Leave it out."),
                    param=name,
                )
            raise RequestError(
                f"There is no request field named {name!r:.100}.",
                hint=f"Known fields: {', '.join(sorted(cls.model_fields))}.",
                param=str(name)[:100],
            )
        return kept


class PromptTokensDetails(BaseModel):
    """Of a prompt's tokens, those whose computed beginning was found."""

    cached_tokens: int = 0


class UsageInfo(BaseModel):
    """Token counts."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptTokensDetails | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class StreamOptions(BaseModel):
    """How a stream is told.

    Attributes:
        include_usage: end with a chunk that holds the token counts and no choices.
        include_obfuscation: accepted; nothing is obfuscated here.
    """

    include_usage: bool = False
    include_obfuscation: bool = False


class StructuredOutputs(BaseModel):
    """What an answer has to look like, in vLLM's words; one of them.

    Attributes:
        json_schema: a schema, as an object or as text; `json` on the wire.
        regex: an expression over the whole answer.
        choice: the answers that are allowed.
        grammar: a context-free grammar in Lark's notation.
        json_object: any JSON object.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    json_schema: str | dict[str, Any] | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class SamplingRequest(OpenAIRequest):
    """The fields that chat and completions share.

    Attributes:
        top_k, min_p, repetition_penalty, no_repeat_ngram_size, ignore_eos, min_tokens,
            stop_token_ids, priority, cache_salt: beyond OpenAI's; see `SamplingParams` and
            `GenerationRequest` of the engine.
        guided_json, guided_regex, guided_choice, guided_grammar, structured_outputs: what
            the answer has to look like, as vLLM's clients say it.
    """

    refused: ClassVar[frozenset[str]] = frozenset(
        {"audio", "prompt_logprobs", "web_search_options"}
    )

    model: str
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    n: int = 1
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    ignore_eos: bool = False
    min_tokens: int = 0
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    priority: int = 0
    cache_salt: str | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None
    user: str | None = None


class JsonSchema(BaseModel):
    """A named schema; every answer follows it, whatever `strict` says."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What a chat answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
