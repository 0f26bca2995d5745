"""What request bodies accept, refuse and tell of themselves."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from fastchat.errors import RequestError
from fastchat.protocol import api_protocol, openai_api_protocol
from fastchat.protocol.openai_api_protocol import (
    ChatCompletionRequest,
    CompletionRequest,
    ModelCard,
    ModelPermission,
    random_id,
)

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_fields_that_the_client_left_out_can_be_told():
    request = ChatCompletionRequest(**CHAT, top_p=1.0, temperature=None)
    assert "top_p" in request.model_fields_set
    assert "temperature" not in request.model_fields_set
    assert (request.temperature, request.n, request.stream) == (0.7, 1, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{}]),
        ("web_search_options", {}),
        ("audio", {"voice": "x"}),
        ("verbosity", "low"),
        ("suffix", "x"),
        ("use_beam_search", True),
        ("reasoning_effort", "high"),
        ("temprature", 1),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_by_name(field, value):
    with pytest.raises(RequestError, match=re.escape(repr(field))) as caught:
        ChatCompletionRequest(**CHAT, **{field: value})
    assert caught.value.param == field
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "me"),
        ("metadata", {"a": "b"}),
        ("store", False),
        ("service_tier", "auto"),
        ("tools", None),
        ("tools", []),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("suffix", None),
        ("whatever", None),
        ("parallel_tool_calls", True),
    ],
)
def test_a_field_that_changes_nothing_is_accepted(field, value):
    ChatCompletionRequest(**CHAT, **{field: value})


def test_a_wrong_type_is_pydantics_to_refuse():
    with pytest.raises(ValidationError):
        ChatCompletionRequest(**CHAT, temperature="hot")


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_prompt_is_text_or_ids_one_or_several(prompt):
    assert CompletionRequest(model="m", prompt=prompt).prompt == prompt


def test_ids_look_like_openais():
    assert re.fullmatch(r"cmpl-[2-9A-HJ-NP-Za-km-z]{22}", random_id("cmpl-"))
    assert random_id("a") != random_id("a")


def test_a_model_card_is_the_documented_one():
    card = ModelCard(id="yuan2", root="yuan2", permission=[ModelPermission()]).model_dump()
    permission = card["permission"][0]
    assert re.fullmatch(r"modelperm-\w{22}", permission.pop("id"))
    assert isinstance(permission.pop("created"), int)
    assert permission == {
        "object": "model_permission",
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": True,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    assert list(card) == ["id", "object", "created", "owned_by", "root", "parent", "permission"]


UPSTREAM_NAMES = [
    "ChatCompletionRequest",
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
    "LogProbs",
    "ModelCard",
    "ModelList",
    "ModelPermission",
    "TokenCheckRequest",
    "TokenCheckRequestItem",
    "TokenCheckResponse",
    "TokenCheckResponseItem",
    "UsageInfo",
]


@pytest.mark.parametrize("name", UPSTREAM_NAMES)
def test_the_names_that_others_import_are_there(name):
    assert hasattr(openai_api_protocol, name)


@pytest.mark.parametrize(
    "name",
    [
        "APIChatCompletionRequest",
        "APITokenCheckRequest",
        "APITokenCheckRequestItem",
        "APITokenCheckResponse",
        "APITokenCheckResponseItem",
    ],
)
def test_fastchats_own_api_has_its_names(name):
    assert hasattr(api_protocol, name)
