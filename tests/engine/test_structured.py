"""Answers of a given form: whatever the model would say, the text that is seen has the form."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastchat
from fastchat.engine.base import Grammar, SamplingParams
from fastchat.engine.native.build import NativeUnavailableError
from fastchat.engine.native.library import ThreadPool
from fastchat.engine.sampling import BatchSampler, Row, RowState
from fastchat.engine.structured import Grammars
from fastchat.errors import RequestError
from fastchat.model import load_tokenizer
from fastchat.model.text_stream import GenericTextStream, YuanTextStream

SCHEMA = {
    "type": "object",
    "properties": {
        "name of it": {"type": "string", "maxLength": 6},
        "größe": {"type": "integer", "minimum": 3, "maximum": 99},
        "kind": {"enum": ["红", "green", " blue"]},
        "parts": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name of it", "größe", "kind", "parts"],
    "additionalProperties": False,
}
CHOICES = ["yes", " no", "也许", "yes, but <sep> no", "  two spaces"]
SUMS = r"""
start: term (" + " term)* "."
term: NUMBER | "(" term ")"
NUMBER: /[0-9]{1,3}/
"""


def of_schema(text: str) -> bool:
    value = json.loads(text)
    return (
        value.keys() == SCHEMA["properties"].keys()
        and len(value["name of it"]) <= 6
        and 3 <= value["größe"] <= 99
        and value["kind"] in SCHEMA["properties"]["kind"]["enum"]
        and all(part in (True, False) for part in value["parts"])
    )


CASES: list[tuple[Grammar, Callable[[str], Any]]] = [
    (Grammar("json_schema", json.dumps(SCHEMA)), of_schema),
    (Grammar("regex", r"( ?[a-zé]{2,5}){3}"), re.compile(r"( ?[a-zé]{2,5}){3}").fullmatch),
    (Grammar("regex", r" {1,3}[日本語]{4}"), re.compile(r" {1,3}[日本語]{4}").fullmatch),
    (Grammar("choice", json.dumps(CHOICES)), CHOICES.__contains__),
    (Grammar("ebnf", SUMS), re.compile(r"(\(*\d{1,3}\)*)( \+ \(*\d{1,3}\)*)*\.").fullmatch),
]
NAMES = ["schema", "regex", "spaces", "choice", "ebnf"]


def demo_tokenizer() -> Any:
    return load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")


def real_tokenizer() -> Any:
    folder = os.environ.get("YUAN2_TOKENIZER")
    if folder is None:
        pytest.skip("YUAN2_TOKENIZER names no tokenizer")
    return load_tokenizer(folder)


def llama_tokenizer() -> Any:
    """A tokenizer of the `tokenizers` library that decodes as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁▁"]
    texts += ["▁yes", "yes", "▁{", '{"', '":', "▁no", "name", "▁of", "▁it", "▁t", "wo", "▁+"]
    texts += [*'abcdefghijklmnopqrstuvwxyz0123456789{}[]()".,+日本語']
    vocabulary = {text: index for index, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def gpt_tokenizer() -> Any:
    """One of bytes, which drops no space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġyes", "yes", "Ġno", '{"']
    tokenizer = Tokenizer(models.BPE({text: index for index, text in enumerate(texts)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


class Model:
    """A tokenizer and what is needed to answer at random with it."""

    def __init__(self, tokenizer: Any, pool: ThreadPool | None = None) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.eos_token_id
        self.size = len(tokenizer) + 37  # padding rows of the embedding
        self.grammars = Grammars(tokenizer, self.size, (self.end,))
        self.sampler = BatchSampler(self.size, pool)
        stream = YuanTextStream if hasattr(tokenizer, "sp_model") else GenericTextStream
        self.stream = lambda: stream(tokenizer, skip_special_tokens=True)
        self._noise = torch.randn(40 * self.size, generator=torch.Generator().manual_seed(1)) * 3

    def state(self, grammar: Grammar, **values: Any) -> RowState:
        params = SamplingParams(grammar=grammar, **values)
        matcher = self.grammars.compile(grammar)
        return RowState(params, [1], end_ids=(self.end,), matcher=matcher)

    def logits(self, rows: int, seed: int) -> torch.Tensor:
        start = seed * 99_991 % (len(self._noise) - rows * self.size)
        return self._noise[start : start + rows * self.size].view(rows, self.size).clone()

    def answers(self, states: list[RowState], limit: int = 400) -> list[list[int]]:
        """Answers to the end, all rows in one batch."""
        ids: list[list[int]] = [[] for _ in states]
        for step in range(limit):
            running = [place for place, state in enumerate(states) if not state.complete]
            if not running:
                break
            rows = [Row(states[place]) for place in running]
            self.sampler.prefetch(rows)
            results = self.sampler.sample(self.logits(len(rows), step), rows)
            for place, result in zip(running, results, strict=True):
                assert result.error is None
                states[place].accept(result.token)
                ids[place].append(result.token)
        return ids

    def text(self, ids: list[int]) -> str:
        stream = self.stream()
        text = stream.push(ids) + stream.finish()
        assert text == self.tokenizer.decode(ids, skip_special_tokens=True)
        return text


@pytest.fixture(
    scope="module", params=[demo_tokenizer, real_tokenizer, llama_tokenizer, gpt_tokenizer]
)
def model(request) -> Iterator[Model]:
    pool = None
    if request.param is real_tokenizer:  # the large vocabulary's masks go through the kernel
        with contextlib.suppress(NativeUnavailableError):
            pool = ThreadPool(2)
    model = Model(request.param(), pool)
    yield model
    model.sampler.close()
    if pool is not None:
        pool.close()


@pytest.mark.parametrize(("grammar", "fits"), CASES, ids=NAMES)
def test_what_is_seen_has_the_form(model, grammar: Grammar, fits: Callable[[str], Any]) -> None:
    states = [model.state(grammar, seed=seed) for seed in range(16)]
    answers = model.answers(states)
    assert all(state.complete for state in states)
    texts = [model.text(ids) for ids in answers]
    assert [text for text in texts if not fits(text)] == []


def test_any_json(model) -> None:
    """Some values never end by themselves with random logits; those that do are JSON."""
    states = [model.state(Grammar("json"), seed=seed) for seed in range(12)]
    for state, ids in zip(states, model.answers(states, limit=120), strict=True):
        if state.complete:
            json.loads(model.text(ids))


def test_a_space_that_is_not_seen_does_not_count() -> None:
    tokenizer = demo_tokenizer()
    model = Model(tokenizer)
    spaced = tokenizer.sp_model.piece_to_id("▁")
    state = model.state(Grammar("choice", '["a"]'))
    mask = np.zeros(state.matcher.words, np.int32)
    state.matcher.fill(mask)
    assert allowed(mask, spaced)
    state.accept(spaced)
    state.matcher.fill(mask)
    assert not allowed(mask, spaced)


def allowed(mask: Any, token: int) -> bool:
    return bool(mask[token // 32] >> (token % 32) & 1)


def test_assumed_tokens_are_followed_and_forgotten(model) -> None:
    grammar = CASES[0][0]
    ids = model.answers([model.state(grammar, seed=1)])[0]
    state, slow = model.state(grammar), model.state(grammar)
    ahead = [Row(state, tuple(ids[:count])) for count in range(min(len(ids), 9))]
    results = model.sampler.sample(model.logits(1, 0).expand(len(ahead), -1).clone(), ahead)
    for count, result in enumerate(results):
        mask, expected = (np.zeros(state.matcher.words, np.int32) for _ in range(2))
        state.matcher.fill(mask, ids[:count])
        slow.matcher.fill(expected)
        assert (mask == expected).all()
        assert allowed(mask, result.token)
        slow.accept(ids[count])
    state.matcher.fill(mask, [ids[0], *ids[:1] * 50])
    assert (mask == -1).all()
    assert not state.complete


def test_an_end_that_must_not_come_yet_comes_if_nothing_else_can(model) -> None:
    state = model.state(Grammar("regex", "a{1,9}"), min_new_tokens=30, temperature=0.0)
    ids = model.answers([state])[0]
    assert model.text(ids) == "a" * 9


def test_free_rows_run_beside_bound_ones(model) -> None:
    """A row without a grammar is not touched by those of others."""
    free = RowState(SamplingParams(seed=1), [1])
    rows = [Row(model.state(CASES[1][0])), Row(free), Row(model.state(CASES[3][0]))]
    logits = model.logits(3, 5)
    together = model.sampler.sample(logits.clone(), rows)[1]
    assert together == model.sampler.sample(logits[1:2].clone(), [Row(free)])[0]


class Lost:
    """A matcher that has lost its way."""

    words = 1
    complete = False

    def accept(self, token: int) -> bool:
        return False

    def fill(self, mask: Any, assumed: Any = ()) -> bool:
        raise ValueError("lost")


def test_a_grammar_that_fails_fails_one_row() -> None:
    sampler = BatchSampler(32)
    rows = [Row(RowState(SamplingParams(seed=1), [1])) for _ in range(3)]
    rows[1].state.matcher = Lost()
    logits = torch.zeros(3, 32)
    sampler.prefetch(rows)
    results = sampler.sample(logits, rows)
    assert [result.token >= 0 for result in results] == [True, False, True]
    assert "lost" in str(results[1].error)
    sampler.close()


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (Grammar("json_schema", '{"type": "nothing"}'), "nothing"),
        (Grammar("json_schema", '{"type": "object"'), "delimiter"),
        (Grammar("json_schema", "[1]"), "object"),
        (Grammar("json_schema", '{"$ref": "http://example.org/schema"}'), "example.org"),
        (Grammar("json_schema", "[" * 100_000), "nested"),
        (Grammar("regex", "(a"), "unclosed"),
        (Grammar("choice", "[]"), "at least one"),
        (Grammar("choice", '["a", 1]'), "strings"),
        (Grammar("ebnf", 'start: "a" | b'), "unknown name"),
        (Grammar("ebnf", " "), "empty"),
        (Grammar("regex", "a" * 1_000_000), "1000000 characters"),
        (Grammar("xml"), "known are json"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_compiled_is_refused(grammar: Grammar, reason: str) -> None:
    tokenizer = demo_tokenizer()
    with pytest.raises(RequestError, match=reason) as caught:
        Grammars(tokenizer, len(tokenizer), (tokenizer.eos_token_id,)).compile(grammar)
    assert caught.value.param == "response_format"


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(RequestError, match="object"):
        Grammars(object(), 10, (0,)).compile(Grammar("json"))
