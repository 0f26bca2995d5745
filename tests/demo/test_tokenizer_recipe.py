"""The demo tokenizer is reproducible, lossless, and its special pieces cannot be typed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.demo import corpus, tokenizer_recipe
from fastchat.demo.tokenizer_recipe import SPECIAL_PIECES, TOKENIZER_FILE, VOCAB_SIZE

COMMITTED = (resources.files("fastchat.demo") / "checkpoint" / TOKENIZER_FILE).read_bytes()
PROCESSOR = tokenizer_recipe.load_processor(COMMITTED)
SPECIAL_IDS = frozenset(PROCESSOR.piece_to_id(name) for name in SPECIAL_PIECES)

MEAN_ANSWER_TOKENS = 11.5
LONGEST_ANSWER_TOKENS = 32

# U+2581 is how SentencePiece writes a space, so it comes back as one; half surrogate pairs
# are no text at all.
texts = st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]))
# Random text hardly ever spells a name; mix whole names, their halves and their joints in.
fragments = st.sampled_from(
    [*SPECIAL_PIECES, "<", ">", "<s", "ep>", "</s>", "<unk>", "<0x41>", " ", "n", "你好", "eod"]
)
spelled = st.lists(fragments | texts, max_size=12).map("".join)


def test_a_fresh_build_equals_the_committed_file(tmp_path: Path) -> None:
    tokenizer_recipe.main(["--out", str(tmp_path / "new" / "folder")])
    assert (tmp_path / "new" / "folder" / TOKENIZER_FILE).read_bytes() == COMMITTED


def test_building_twice_gives_the_same_bytes() -> None:
    sentences = tokenizer_recipe.training_sentences()[:200]
    first, second = (tokenizer_recipe.build_tokenizer(sentences, vocab_size=1200) for _ in "12")
    assert first == second


def test_file_is_small() -> None:
    assert 10_000 < len(COMMITTED) < 60_000


def test_ids_are_laid_out_as_in_the_published_vocabulary() -> None:
    assert PROCESSOR.vocab_size() == VOCAB_SIZE
    assert [PROCESSOR.id_to_piece(i) for i in range(3)] == ["<unk>", "<s>", "</s>"]
    first = VOCAB_SIZE - len(SPECIAL_PIECES)
    assert [PROCESSOR.id_to_piece(i) for i in range(first, VOCAB_SIZE)] == list(SPECIAL_PIECES)
    assert SPECIAL_PIECES[:4] == ("<eod>", "<n>", "<sep>", "<pad>")


def test_special_pieces_are_ordinary_for_sentencepiece() -> None:
    for piece_id in SPECIAL_IDS:
        assert not PROCESSOR.is_control(piece_id)
        assert not PROCESSOR.is_unknown(piece_id)
        assert not PROCESSOR.is_unused(piece_id)
        assert not PROCESSOR.is_byte(piece_id)
        assert PROCESSOR.get_score(piece_id) == 0.0


def test_no_piece_straddles_an_angle_bracket() -> None:
    pieces = tokenizer_recipe.ordinary_pieces(COMMITTED)
    assert {"<", ">"} <= set(pieces)
    assert [p for p in pieces if len(p) > 1 and ("<" in p or ">" in p)] == []


def test_a_reachable_special_piece_is_refused() -> None:
    with pytest.raises(ValueError, match="grow into a special piece"):
        tokenizer_recipe.build_tokenizer(["ab?< ?< ba"] * 50, vocab_size=285)


def test_special_pieces_are_not_appended_twice() -> None:
    with pytest.raises(ValueError, match="already holds '<eod>'"):
        tokenizer_recipe.append_special_pieces(COMMITTED)


@pytest.mark.parametrize("name", SPECIAL_PIECES)
def test_typing_a_special_name_gives_plain_pieces(name: str) -> None:
    for text in (name, f" {name} ", f"你好{name}hello", name * 5, f"<{name}>", f"?{name}"):
        assert not SPECIAL_IDS & set(PROCESSOR.encode(text))


@settings(max_examples=300, deadline=None)
@given(spelled)
def test_any_text_round_trips_without_special_pieces(text: str) -> None:
    ids = PROCESSOR.encode(text)
    assert PROCESSOR.decode(ids) == text
    assert not SPECIAL_IDS & set(ids)
    assert PROCESSOR.unk_id() not in ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  leading and inner  spaces ",
        "tab\tand\r\nline ends\n\n",
        "🙂👨‍👩‍👧 emoji 🇨🇳",
        "生僻字：龘靐齉，𠮷",
        "e\u0301 combining, \u200b zero width, \ufeff mark, \x00 null, \uffff none",
        "العربية עברית हिन्दी 한국어 ไทย",
        "python3 -m fastchat.serve.cli --model-path /tmp/a_b",
        "1234567890 ＋ １２",
    ],
)
def test_chosen_texts_round_trip(text: str) -> None:
    assert PROCESSOR.decode(PROCESSOR.encode(text)) == text


def test_the_space_mark_is_the_one_exception() -> None:
    assert PROCESSOR.decode(PROCESSOR.encode("a\u2581b")) == "a b"


def test_digits_stand_alone() -> None:
    assert PROCESSOR.encode("21001", out_type=str) == ["▁", "2", "1", "0", "0", "1"]
    pieces = tokenizer_recipe.ordinary_pieces(COMMITTED)
    assert [p for p in pieces if len(p) > 1 and any(c.isdigit() for c in p)] == []


def test_bundled_conversations_need_no_bytes() -> None:
    for text in corpus.unique_texts(corpus.load_conversations()):
        assert not any(PROCESSOR.is_byte(i) for i in PROCESSOR.encode(text)), text


def test_answers_are_few_tokens(record_property: Callable[[str, object], None]) -> None:
    answers = [e.answer for e in corpus.unique_exchanges(corpus.load_conversations())]
    lengths = [len(PROCESSOR.encode(answer)) for answer in answers]
    record_property("mean_answer_tokens", mean(lengths))
    print(f"answer tokens: mean {mean(lengths):.2f}, longest {max(lengths)}, all {sum(lengths)}")
    assert mean(lengths) <= MEAN_ANSWER_TOKENS
    assert max(lengths) <= LONGEST_ANSWER_TOKENS


def test_out_folder_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        tokenizer_recipe.main([])
    assert stopped.value.code == 2
    assert "--out" in capsys.readouterr().err
