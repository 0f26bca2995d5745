"""The tokenizer: SentencePiece's ids on every text, exact text back, nothing injected."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import fastchat
from fastchat.chat import YuanChatRenderer
from fastchat.model import YuanTokenizer, load_tokenizer
from fastchat.model.text_stream import GenericTextStream, TextStream, YuanTextStream
from fastchat.model.tokenization_yuan import SPECIAL_TOKENS

CONTROL = [*SPECIAL_TOKENS, "<eod>", "<s>", "<unk>", "<n>", "</s>"]
# SentencePiece writes a space as U+2581, so that one character comes back as a space.
plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\0"))
any_text = st.lists(st.one_of(plain_text, st.sampled_from(CONTROL))).map("".join)


@pytest.fixture(scope="module")
def small() -> YuanTokenizer:
    tokenizer: YuanTokenizer = load_tokenizer(
        Path(fastchat.__file__).parent / "demo" / "checkpoint"
    )
    return tokenizer


@pytest.fixture(scope="module")
def published(yuan2_tokenizer_path: Path) -> YuanTokenizer:
    tokenizer: YuanTokenizer = load_tokenizer(yuan2_tokenizer_path)
    return tokenizer


@pytest.fixture(scope="module")
def golden_tokens(golden_dir: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((golden_dir / "tokenizer.json").read_text())
    return content


def test_golden_ids_and_text(published: YuanTokenizer, golden_tokens: dict) -> None:
    cases = golden_tokens["cases"]
    for case, batched in zip(
        cases, published([case["text"] for case in cases])["input_ids"], strict=True
    ):
        assert published(case["text"])["input_ids"] == case["adapter_ids"]
        assert published.encode(case["text"]) == case["adapter_ids"]
        assert published.encode_offsets(case["text"], parse_special=True)[0] == case["adapter_ids"]
        assert batched == case["adapter_ids"]
        assert published.decode(case["adapter_ids"]) == case["text"]
        pieces = published.tokenize(case["text"])
        assert published.convert_tokens_to_ids(pieces) == case["adapter_ids"]
        assert published.convert_tokens_to_string(pieces) == case["text"]


def test_golden_special_tokens(published: YuanTokenizer, golden_tokens: dict) -> None:
    for token, number in golden_tokens["special_token_ids"].items():
        assert published.convert_tokens_to_ids(token) == number
    assert published.vocab_size == golden_tokens["base_vocab_size"]
    assert len(published) == golden_tokens["len_with_added"] == len(published.get_vocab())
    assert published.eos_token == "<eod>"
    assert published.sep_token == "<sep>"


def test_golden_chats(published: YuanTokenizer, golden_dir: Path) -> None:
    for case in json.loads((golden_dir / "chat_template.json").read_text())["cases"]:
        messages = case["messages"]
        assert published.apply_chat_template(messages, tokenize=False) == case["rendered"]
        assert published.apply_chat_template(messages)["input_ids"] == case["ids"]
        raw = YuanChatRenderer(published, parse_special=True).render(messages)
        assert (raw.text, raw.ids) == (case["rendered"], case["ids"])
        served = YuanChatRenderer(published).render(messages)
        typed = any(token in m["content"] for m in messages for token in CONTROL if token != "<n>")
        assert (served.ids == case["ids"]) != typed


def test_the_librarys_own_loader_takes_this_class(
    yuan2_tokenizer_path: Path, golden_dir: Path, golden_tokens: dict, tmp_path: Path
) -> None:
    shutil.copytree(yuan2_tokenizer_path, tmp_path, dirs_exist_ok=True)
    shutil.copy(golden_dir / "yuan2" / "tiny-a" / "config.json", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(tokenizer, YuanTokenizer)
    for case in golden_tokens["cases"]:
        assert tokenizer(case["text"])["input_ids"] == case["adapter_ids"]


@settings(max_examples=150, deadline=None)
@given(text=any_text)
def test_round_trip_and_streams(small: YuanTokenizer, text: str) -> None:
    for parse in (True, False):
        ids = small.encode_ids(text, parse_special=parse)
        # `</s>` is no token of its own here: it is encoded, and comes back, as text.
        assert small.decode_ids(ids) == text
        assert small(text, split_special_tokens=not parse)["input_ids"] == ids
        assert small([text], split_special_tokens=not parse)["input_ids"] == [ids]


@settings(max_examples=150, deadline=None)
@given(text=any_text)
def test_typed_control_tokens_are_plain_text(small: YuanTokenizer, text: str) -> None:
    control = {small.convert_tokens_to_ids(token) for token in [*SPECIAL_TOKENS, "<eod>", "<n>"]}
    assert not control & set(small.encode_ids(text, parse_special=False))
    prompt = YuanChatRenderer(small).render([{"role": "user", "content": text}])
    assert [i for i in prompt.ids if i in control] == [small.sep_token_id]
    assert prompt.ids[-1] == small.sep_token_id


@settings(max_examples=150, deadline=None)
@given(text=any_text)
def test_offsets_cover_the_text(small: YuanTokenizer, text: str) -> None:
    ids, offsets = small.encode_offsets(text, parse_special=True)
    assert ids == small.encode_ids(text)
    covered = 0
    for start, end in offsets:
        assert start <= covered <= max(end, covered)
        covered = max(covered, end)
    assert covered == len(text)
    encoding = small(text, return_offsets_mapping=True)
    assert encoding["offset_mapping"] == offsets


def test_offsets_of_byte_pieces_share_a_character(small: YuanTokenizer) -> None:
    ids, offsets = small.encode_offsets("a😀b")
    spans = [span for token, span in zip(ids, offsets, strict=True) if small.is_byte_id(token)]
    assert spans == [(1, 2)] * 4


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_streamed_text_is_the_whole_text(small: YuanTokenizer, data: st.DataObject) -> None:
    special = st.sampled_from(list(small.added_tokens_decoder))
    token = st.one_of(st.integers(0, 300), st.integers(0, small.vocab_size + 80), special)
    ids = data.draw(st.lists(token, max_size=16))
    for skip in (True, False):
        stream = YuanTextStream(small, skip_special_tokens=skip)
        pieces = [stream.push([token]) for token in ids] + [stream.finish()]
        assert "".join(pieces) == small.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("make", [YuanTextStream, GenericTextStream])
def test_no_piece_breaks_a_character(
    small: YuanTokenizer, make: type[YuanTextStream] | type[GenericTextStream]
) -> None:
    text = "混合 mixed 👨‍👩‍👧 文本 ñ 𠮷 end"
    stream: TextStream = make(small)
    pieces = [stream.push([token]) for token in small.encode_ids(text)]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join(pieces) + stream.finish() == text


def test_saved_and_loaded_again(small: YuanTokenizer, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    text = "你好<mask> <eod>x"
    for again in (
        load_tokenizer(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(small)),
    ):
        assert isinstance(again, YuanTokenizer)
        assert again(text)["input_ids"] == small(text)["input_ids"]
        assert again.special_tokens_map == small.special_tokens_map
        assert again.chat_template == small.chat_template


def test_batches_pad_and_cut_as_everywhere(small: YuanTokenizer) -> None:
    ids = small.encode_ids("one two three")
    batch = small(["one two three", "one"], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(ids), len(small.encode("one"))]
    cut = small("one two three", truncation=True, max_length=2, return_offsets_mapping=True)
    assert cut["input_ids"] == ids[:2]
    assert len(cut["offset_mapping"]) == 2
    assert small([])["input_ids"] == []
    assert small("")["input_ids"] == []
    assert small("one", "two")["input_ids"] == small.encode("one") + small.encode("two")


def test_new_tokens_can_be_added(small: YuanTokenizer, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<new>"]) == 1
    assert tokenizer.encode_ids("a<new>b").count(size) == 1
    assert tokenizer.decode([size]) == "<new>"
