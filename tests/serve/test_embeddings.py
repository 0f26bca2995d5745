"""Embeddings, models, token counts and health, asked of the API server."""

from __future__ import annotations

import math

import openai
import pytest

from fastchat.serve.worker.embeddings import embed
from tests.serve.harness import get


def test_inputs_are_embedded_in_order_and_in_both_encodings(stack):
    texts = [f"text {number}" for number in range(6)]
    as_base64 = stack.client.embeddings.create(model="echo", input=texts)
    as_numbers = stack.client.embeddings.create(model="echo", input=texts, encoding_format="float")
    assert [item.index for item in as_numbers.data] == list(range(6))
    for one, other in zip(as_base64.data, as_numbers.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert math.hypot(*other.embedding) == pytest.approx(1)
    assert as_numbers.usage.prompt_tokens == sum(map(len, texts))
    assert len({tuple(item.embedding) for item in as_numbers.data}) == 6


def test_ids_and_the_engine_route_give_the_same_as_text(stack):
    ask = stack.client.embeddings.create
    text = ask(model="echo", input="Hi", encoding_format="float").data[0].embedding
    ids = ask(model="echo", input=[72, 105], encoding_format="float").data[0].embedding
    route = stack.post("/v1/engines/echo/embeddings", {"input": ["Hi"]}).json()
    assert text == ids == route["data"][0]["embedding"]
    assert route["object"] == "list"
    assert route["data"][0]["object"] == "embedding"
    assert route["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize("given", ["", [], ["a", ""], [[]]])
def test_an_empty_input_is_400(stack, given):
    response = stack.post("/v1/embeddings", {"model": "echo", "input": given})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input"


def test_a_long_input_is_embedded_in_parts_or_cut(make_stack):
    whole = make_stack(context_length=4)
    cut = make_stack(context_length=4, worker={"embed_in_truncate": True})
    ask = {"model": "echo", "input": "abcdef", "encoding_format": "float"}
    in_parts = whole.client.embeddings.create(**ask)
    shortened = cut.client.embeddings.create(**ask)
    start = cut.client.embeddings.create(**{**ask, "input": "abcd"})
    assert in_parts.usage.prompt_tokens == 6
    assert shortened.usage.prompt_tokens == 4
    assert shortened.data[0].embedding == start.data[0].embedding
    assert math.hypot(*in_parts.data[0].embedding) == pytest.approx(1)


async def test_the_parts_of_a_row_are_weighted_by_their_tokens():
    class Axes:
        context_length = 3

        async def embed(self, batch):
            return [[1.0, 0.0] if len(row) == 3 else [0.0, 1.0] for row in batch]

    vectors, read = await embed(Axes(), [[1, 2, 3, 4], [5]], truncate=False)
    assert vectors[0] == pytest.approx([3 / math.sqrt(10), 1 / math.sqrt(10)])
    assert vectors[1] == [0.0, 1.0]
    assert read == 5


def test_models_are_listed_and_told_one_by_one(make_stack):
    stack = make_stack(worker={"model_names": ["yuan2", "org/yuan2-2b"]})
    assert [card.id for card in stack.client.models.list()] == ["org/yuan2-2b", "yuan2"]
    card = stack.client.models.retrieve("org/yuan2-2b").model_dump()
    assert (card["object"], card["owned_by"], card["root"]) == ("model", "fastchat", card["id"])
    assert card["permission"][0]["allow_sampling"] is True
    with pytest.raises(openai.NotFoundError, match="yuan2"):
        stack.client.models.retrieve("nope")


def test_token_check_tells_whether_a_prompt_and_its_answer_fit(make_stack):
    stack = make_stack(context_length=10)
    prompts = [{"model": "echo", "prompt": "abcd", "max_tokens": tokens} for tokens in (6, 7)] + [
        {"model": "echo", "prompt": "", "max_tokens": 1}
    ]
    assert stack.post("/api/v1/token_check", {"prompts": prompts}).json() == {
        "prompts": [
            {"fits": True, "tokenCount": 4, "contextLength": 10},
            {"fits": False, "tokenCount": 4, "contextLength": 10},
            {"fits": True, "tokenCount": 0, "contextLength": 10},
        ]
    }


def test_health_is_503_with_a_reason_until_a_worker_is_there(make_stack):
    _, empty = make_stack.controller()
    _, api = make_stack.api(empty.url)
    response = get(api.url + "/health")
    assert response.status_code == 503
    assert "worker" in response.json()["reason"]
    healthy = make_stack()
    response = get(healthy.api_server.url + "/health")
    assert response.json() == {"status": "ok", "models": ["echo"]}
