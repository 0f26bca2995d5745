"""The bundled conversations are clean, true to their rules, and the corpus keeps its secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from fastchat.demo import corpus
from fastchat.demo.corpus import BundledConversation, Exchange
from fastchat.demo.tokenizer_recipe import SPECIAL_PIECES
from fastchat.errors import DataError

CONVERSATIONS = corpus.load_conversations()
EXCHANGES = corpus.unique_exchanges(CONVERSATIONS)
HAN = re.compile(r"[一-鿿]")
COMMAND = re.compile(r"fastchat[./]|pip install|--|/v1|split_example|conversations|Apache|_lora")


def all_turns() -> list[tuple[str, str]]:
    return [(item.id, turn) for item in CONVERSATIONS for turn in item.turns]


def test_file_is_plain_readable_sharegpt_json() -> None:
    text = corpus.data_path(corpus.CONVERSATIONS_FILE).read_text("utf-8")
    items = json.loads(text)
    assert "\\u" not in text, "characters must be written as themselves"
    assert max(len(line) for line in text.splitlines()) <= 120
    for item in items:
        assert set(item) == {"id", "conversations"}
        assert all(set(turn) == {"from", "value"} for turn in item["conversations"])


def test_ids_are_unique_and_name_both_languages() -> None:
    ids = [item.id for item in CONVERSATIONS]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"(zh|en)_\d{3}", id_) for id_ in ids)
    languages = Counter(id_[:2] for id_ in ids)
    assert min(languages.values()) >= 150
    assert 320 <= len(ids) <= 360


def test_first_question_is_in_the_language_of_the_id() -> None:
    # The one exception asks in English about a Chinese word.
    odd = [
        (item.id, item.turns[0])
        for item in CONVERSATIONS
        if (item.id[:2] == "zh") != bool(HAN.search(item.turns[0]))
    ]
    assert [question for _, question in odd] == ["What does 你好 mean?"]


def test_about_a_quarter_has_several_turns() -> None:
    turns = Counter(len(item.answers) for item in CONVERSATIONS)
    assert set(turns) == {1, 2, 3, 4}
    share = 1 - turns[1] / len(CONVERSATIONS)
    assert 0.2 <= share <= 0.3


def test_no_history_has_two_answers() -> None:
    answers: dict[tuple[str, ...], str] = {}
    for item in CONVERSATIONS:
        for exchange in item.exchanges():
            known = answers.setdefault(exchange.context, exchange.answer)
            assert known == exchange.answer, f"{item.id}: {exchange.context} has two answers"
    assert len(EXCHANGES) == len(answers)


def test_no_conversation_is_there_twice() -> None:
    counts = Counter(item.turns for item in CONVERSATIONS)
    assert [turns for turns, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("special", [*SPECIAL_PIECES, "<unk>", "<s>", "</s>", "\u2581"])
def test_no_value_holds_a_control_token(special: str) -> None:
    assert [id_ for id_, turn in all_turns() if special in turn] == []
    assert [line for line in corpus.load_prose() if special in line] == []


def test_no_value_has_outer_whitespace() -> None:
    assert [id_ for id_, turn in all_turns() if turn != turn.strip() or not turn] == []


def test_answers_are_short() -> None:
    for item in CONVERSATIONS:
        for answer in item.answers:
            if COMMAND.search(answer):
                assert len(answer) <= 70, (item.id, answer)
            elif HAN.search(answer) and item.id.startswith("zh"):
                assert 4 <= len(answer) <= 24, (item.id, answer)
            elif not HAN.search(answer):
                assert 3 <= len(answer.split()) <= 14, (item.id, answer)


def test_chinese_sentences_use_chinese_punctuation() -> None:
    ascii_mark = re.compile(r"[一-鿿][,.?!;:]")
    odd = [pair for pair in all_turns() if pair[0][:2] == "zh" and ascii_mark.search(pair[1])]
    assert odd == []


def test_english_sentences_use_ascii_punctuation() -> None:
    wide_mark = re.compile(r"[，。？！：；]")
    odd = [pair for pair in all_turns() if pair[0][:2] == "en" and wide_mark.search(pair[1])]
    # The two answers that are Chinese sentences on request.
    assert all(HAN.search(turn) and not re.search(r"[a-z]{6}", turn) for _, turn in odd)
    assert len(odd) == 2


def test_paraphrases_of_the_main_questions_share_one_answer() -> None:
    asked = Counter(exchange.answer for exchange in EXCHANGES if len(exchange.context) == 1)
    identity = answer_to("Who are you?"), answer_to("你是谁？")
    tuning = answer_to("How do I fine-tune?"), answer_to("怎么微调？")
    for answer in (*identity, *tuning):
        assert asked[answer] >= 4, answer
    assert all("Yuan2" in answer for answer in identity)


def answer_to(question: str) -> str:
    return next(e.answer for e in EXCHANGES if e.context == (question,))


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("Which port does the controller use?", "21001"),
        ("Which port does a worker use?", "21002"),
        ("Which port does the API server use?", "8000"),
        ("控制器用哪个端口？", "21001"),
        ("工作进程用哪个端口？", "21002"),
        ("API 服务器用哪个端口？", "8000"),
        ("Which loss is the default?", "--split_example_loss"),
        ("默认用哪种损失？", "--split_example_loss"),
        ("Which licence does the code have?", "Apache-2.0"),
        ("用的是什么许可证？", "Apache-2.0"),
        ("Which Python do I need?", "3.11"),
        ("要什么版本的 Python？", "3.11"),
        ("怎么启动控制器？", "python3 -m fastchat.serve.controller"),
    ],
)
def test_answers_state_the_facts(question: str, fact: str) -> None:
    assert fact in answer_to(question)


def test_exchanges_carry_their_whole_history() -> None:
    item = BundledConversation(id="x", turns=("q1", "a1", "q2", "a2"))
    assert list(item.exchanges()) == [
        Exchange(context=("q1",), answer="a1"),
        Exchange(context=("q1", "a1", "q2"), answer="a2"),
    ]


@pytest.mark.parametrize("roles", [["gpt", "human"], ["human"], ["human", "human"], []])
def test_wrong_roles_are_refused_with_the_id(roles: list[str]) -> None:
    turns = [{"from": role, "value": "x"} for role in roles]
    with pytest.raises(DataError, match="zh_007"):
        corpus.parse_conversations(json.dumps([{"id": "zh_007", "conversations": turns}]))


def test_prose_is_half_chinese_and_of_the_promised_size() -> None:
    lines = corpus.load_prose()
    assert all(line and line == line.strip() for line in lines)
    assert len(lines) == len(set(lines))
    sizes = Counter[bool]()
    for line in lines:
        sizes[len(HAN.findall(line)) > len(line) / 2] += len(line.encode("utf-8"))
    assert 60_000 <= sizes.total() <= 100_000
    assert 0.4 <= sizes[True] / sizes.total() <= 0.6


def test_corpus_never_shows_a_question_with_its_answer() -> None:
    statements = len(corpus.arithmetic_statements())
    documents = corpus.pretraining_documents(seed=0, arithmetic_count=statements)
    for exchange in EXCHANGES:
        question, answer = exchange.context[-1], exchange.answer
        for document in documents:
            start = document.find(question)
            told = start >= 0 and answer in document[start + len(question) :]
            assert not told, f"{document!r} gives {answer!r} after {question!r}"


def test_every_text_of_the_conversations_is_a_document_of_its_own() -> None:
    documents = set(corpus.pretraining_documents(seed=0))
    assert documents.issuperset(turn for _, turn in all_turns())
    assert documents.issuperset(corpus.load_prose())


def test_documents_depend_on_the_seed_only() -> None:
    first = corpus.pretraining_documents(seed=1)
    assert first == corpus.pretraining_documents(seed=1)
    assert first != corpus.pretraining_documents(seed=2)
    plain = [corpus.pretraining_documents(seed=s, arithmetic_count=0) for s in (1, 2)]
    assert plain[0] != plain[1]
    assert sorted(plain[0]) == sorted(plain[1])


def test_too_many_statements_are_refused() -> None:
    with pytest.raises(DataError, match="allowed are 0 to"):
        corpus.pretraining_documents(seed=0, arithmetic_count=10**6)


def test_arithmetic_statements_are_true_and_different() -> None:
    statements = corpus.arithmetic_statements()
    assert len(statements) == len(set(statements))
    checked = 0
    for text in statements:
        if found := re.fullmatch(r"(\d+) ([-+x]) (\d+) = (\d+)", text):
            left, operator, right, result = found.groups()
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "x": a * b}[operator] == int(result)
            checked += 1
    assert checked * 3 == len(statements)


@pytest.mark.parametrize(
    ("value", "english", "chinese"),
    [
        (0, "zero", "零"),
        (9, "nine", "九"),
        (10, "ten", "十"),
        (12, "twelve", "十二"),
        (20, "twenty", "二十"),
        (81, "eighty-one", "八十一"),
        (99, "ninety-nine", "九十九"),
    ],
)
def test_numbers_in_words(value: int, english: str, chinese: str) -> None:
    assert corpus.english_number(value) == english
    assert corpus.chinese_number(value) == chinese


@pytest.mark.parametrize("value", [-1, 100])
def test_numbers_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="0 to 99"):
        corpus.english_number(value)
    with pytest.raises(ValueError, match="0 to 99"):
        corpus.chinese_number(value)


@pytest.mark.parametrize("module", ["corpus", "tokenizer_recipe"])
def test_importing_is_cheap(module: str) -> None:
    heavy = "{'torch', 'transformers', 'sentencepiece', 'google.protobuf'}"
    code = f"import sys, fastchat.demo.{module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
