"""Tools that clean: filter, replace, languages, saved pages, identity, and all in a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data import (
    clean_sharegpt,
    filter_wrong_format,
    hardcoded_questions,
    optional_clean,
    optional_replace,
    prepare_all,
)
from fastchat.data.filter_wrong_format import has_broken_list
from fastchat.data.optional_clean import stammers
from fastchat.data.optional_replace import TokenBreaker, special_tokens
from fastchat.data.reader import read_samples
from fastchat.model.tokenization_yuan import SPECIAL_TOKENS, YuanTokenizer
from tests.data.conftest import read_json as read
from tests.data.conftest import talk_item as talk
from tests.data.conftest import write_json as write


@pytest.fixture
def model(tokenizer: YuanTokenizer, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "yuan"}')
    return folder


def test_what_training_refuses_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [
        talk("a", "1. x\n2. y\n1. z", id="kept"),
        {"instruction": "a", "output": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    bad = [3, {}, talk("a"), talk("a", None), talk("a", "\ud83d"), talk("a", "1. x\n\n1. y")]
    source, out = write(tmp_path / "in.json", [*bad, *good]), tmp_path / "out.json"
    command = ["--in-file", str(source), "--out-file", str(out)]
    assert filter_wrong_format.main(command) == 0
    assert read(out) == good
    assert len(read_samples(out)) == 3
    printed, complaints = capsys.readouterr()
    assert "9 samples: 3 kept, 6 dropped (4 not as training reads them, 1 without" in printed
    assert "sample 4 (id '#4'), turn 2, has null as 'value'" in complaints


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("1. a\n1. b", True),
        ("1. a\n3. b\n1. c", True),
        ("1. a\n2. b\n1. c", False),
        ("1. a and 1. b", False),
        ("11. a\n1. b", False),
    ],
)
def test_broken_lists(text: str, broken: bool) -> None:
    assert has_broken_list(text) is broken


def test_special_tokens_are_those_of_the_tokenizer(tokenizer: YuanTokenizer) -> None:
    assert special_tokens(tokenizer) >= {*SPECIAL_TOKENS, "<eod>", "<n>"}


@given(
    parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<eod>", "<n>"]) | st.text("<>sepn ")),
)
def test_broken_up_text_holds_no_token_and_no_other_change(parts: list[str]) -> None:
    tokens = {*SPECIAL_TOKENS, "<eod>", "<n>"}
    breaker = TokenBreaker(tokens)
    text = "".join(parts)
    broken = breaker(text)
    assert not any(token in broken for token in tokens)
    assert broken.replace(" ", "") == text.replace(" ", "")
    assert len(broken) == len(text) + breaker.count
    assert TokenBreaker(tokens)(broken) == broken


def test_tokens_that_cannot_be_broken_are_left() -> None:
    assert TokenBreaker(["a", "  ", "\n\n", ""])("a  b\n\n") == "a  b\n\n"


def test_special_tokens_are_broken_up_and_counted(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [
        talk("a<sep>b<n>", "x < y <eod>", system="<FIM_MIDDLE>", model="<sep>"),
        talk("a", "b"),
    ]
    source = write(tmp_path / "chat.json", items)
    command = ["--in-file", str(source), "--model-name-or-path", str(model)]
    assert optional_replace.main(command) == 0
    assert read(tmp_path / "chat_replace.json") == [
        talk("a< sep>b< n>", "x < y < eod>", system="< FIM_MIDDLE>", model="<sep>"),
        talk("a", "b"),
    ]
    assert "2 samples, 4 special tokens broken up" in capsys.readouterr().out


LANGUAGES = [
    talk("你好", "你好！", id="zh"),
    talk("How are you?", "I am fine, and you?", id="en"),
    talk("哈" * 9, "笑什么？", id="stammer"),
    talk("1+1", "2", id="none"),
]


@pytest.mark.parametrize(
    ("flags", "name", "kept"),
    [
        ([], "chat_all.json", ["zh", "en", "stammer", "none"]),
        (["--keep-lang", "zh"], "chat_zh.json", ["zh", "stammer"]),
        (["--skip_lang", "zh"], "chat_skip_zh.json", ["en", "none"]),
        (["--reduce-rep"], "chat_reduced.json", ["zh", "en", "none"]),
        (["--keep-lang", "zh", "--reduce-rep"], "chat_zh_reduced.json", ["zh"]),
    ],
)
def test_languages_and_stammering(
    tmp_path: Path, flags: list[str], name: str, kept: list[str]
) -> None:
    source = write(tmp_path / "chat.json", LANGUAGES)
    assert optional_clean.main(["--in-file", str(source), *flags]) == 0
    assert [item["id"] for item in read(tmp_path / name)] == kept


def test_one_language_cannot_be_kept_and_another_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "chat.json", LANGUAGES)
    flags = ["--in-file", str(source), "--keep-lang", "zh", "--skip-lang", "en"]
    assert optional_clean.main(flags) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_rules_and_tables_do_not_stammer() -> None:
    assert not stammers("-" * 40 + "|" * 20 + "________________" + "a" * 8)
    assert stammers("0" * 9)


PAGES = [
    talk("Q1", '<div class="markdown"><p>A <b>b</b></p></div>', id="page", model="m"),
    talk("Q2 with <p>html</p>", "a < b\n```\n<p>x</p>\n```", id="text"),
    talk("Q1", "A **b**", "more", "again", id="twice"),
    talk("Q3", id="short"),
    talk("Q4", '<div class="markdown"><script>x</script></div>', id="empty"),
    talk("Q5", "Network ERROR here", id="word"),
    {"id": "order", "conversations": [{"from": "human", "value": "x"}] * 2},
    {"id": "none"},
    {
        "id": "cut",
        "conversations": [
            {"from": "gpt", "value": "Welcome"},
            *talk("Q6", "A6", "open")["conversations"],
        ],
    },
]


def test_saved_pages_are_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "in.json", PAGES), tmp_path / "out.json"
    words = tmp_path / "words.txt"
    words.write_text("network error\n\n")
    command = ["--in-file", str(source), "--out-file", str(out), "--drop-words", str(words)]
    assert clean_sharegpt.main(command) == 0
    assert read(out) == [
        talk("Q1", "A **b**", id="page", model="m"),
        PAGES[1],
        talk("Q6", "A6", id="cut"),
    ]
    printed = capsys.readouterr().out
    for reason in (
        "9 samples: 3 kept, 6 dropped",
        "1 seen before",
        "1 too short",
        "1 with an empty turn",
        "1 with a word that is not wanted",
        "2 not as training reads them",
        "1 turns of HTML made into Markdown",
    ):
        assert reason in printed


def test_a_list_of_words_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.json", PAGES)
    out = tmp_path / "out.json"
    command = ["--in-file", str(source), "--out-file", str(out), "--drop-words", "nowhere.txt"]
    assert clean_sharegpt.main(command) == 2
    assert "--drop-words nowhere.txt cannot be read" in capsys.readouterr().err
    assert not out.exists()


def test_debug_reads_the_first_thousand(tmp_path: Path) -> None:
    items = [talk(str(number), "a") for number in range(1010)]
    source, out = write(tmp_path / "in.json", items), tmp_path / "out.json"
    command = ["--in-file", str(source), "--out-file", str(out), "--begin", "5", "--debug"]
    assert clean_sharegpt.main(command) == 0
    assert read(out) == items[5:1005]


def test_the_model_tells_its_name(tmp_path: Path) -> None:
    out = tmp_path / "own.json"
    flags = ["--name", "小{x}", "--org", "Acme", "--out-file", str(out)]
    assert hardcoded_questions.main(flags) == 0
    samples = read_samples(out)
    assert len({sample.id for sample in samples}) == len(samples) > 50
    assert len({tuple(m["content"] for m in sample.messages) for sample in samples}) == len(samples)
    assert all("小{x}" in sample.messages[1]["content"] for sample in samples)
    assert any(not sample.messages[0]["content"].isascii() for sample in samples)
    assert hardcoded_questions.main(["--name", " "]) == 2


def test_the_default_identity_is_yuan2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hardcoded_questions.main([]) == 0
    answers = " ".join(sample.messages[1]["content"] for sample in read_samples("hardcoded.json"))
    assert "源2.0" in answers
    assert "Yuan 2.0" in answers


def test_all_steps_in_a_row(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [
        talk(*(f"<p>{'word ' * 10}{n} {k}</p>" for k in range(8)), id=f"t{n}") for n in range(20)
    ]
    write(tmp_path / "chat_html.json", items)
    flags = ["--prefix", str(tmp_path / "chat"), "--model-name-or-path", str(model)]
    assert prepare_all.main([*flags, "--seq-len", "150", "--name", "Y"]) == 0
    stem = "chat_clean_lang_split"
    train, test = read(tmp_path / f"{stem}_train.json"), read(tmp_path / f"{stem}_test.json")
    split, hardcoded = read(tmp_path / f"{stem}.json"), read(tmp_path / "chat_hardcoded.json")
    assert sorted(item["id"] for item in train + test) == sorted(item["id"] for item in split)
    assert len(split) > len(items)
    assert read(tmp_path / f"{stem}_identity.json") == train + hardcoded
    assert not any(
        "<p>" in sample.messages[1]["content"]
        for sample in read_samples(tmp_path / f"{stem}_identity.json")
    )
    assert capsys.readouterr().out.count("$ python -m fastchat.data.") == 7


def test_a_prefix_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--prefix", str(tmp_path / "x"), "--model-name-or-path", "nowhere"]
    assert prepare_all.main(flags) == 1
    assert "x_html.json nor" in capsys.readouterr().err
