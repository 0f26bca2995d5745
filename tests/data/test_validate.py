"""The tool shows rows as training sees them, and says what is wrong in one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.chat import YuanChatRenderer
from fastchat.data.dataset import ItemReader
from fastchat.data.rows import IGNORED, LossMode
from fastchat.data.sample import Sample
from fastchat.data.sources import Source
from fastchat.data.validate import main
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.talks import conversations, learned_by, learned_by_tree, talk, write_samples

TALK = ["你是谁?", "我是源2.0。", "Bye\x1b[31m", "Bye! 😀"]


@pytest.fixture
def model(tokenizer: YuanTokenizer, tmp_path: Path) -> Path:
    """A model folder without weights."""
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "yuan"}')
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    turns = [
        {"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(TALK)
    ]
    path = tmp_path / "chat.json"
    items = [{"id": "a", "conversations": turns}, {"id": "b", "conversations": turns[:1]}]
    path.write_text(json.dumps(items))
    return path


def test_json_holds_every_row_in_order(
    model: Path,
    data: Path,
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--model-name-or-path", str(model), "--data-path", str(data), "--json"]) == 0
    output, errors = capsys.readouterr()
    first, second = map(json.loads, output.splitlines())
    question = renderer.render([{"role": "user", "content": TALK[0]}]).ids
    answer = renderer.answer_ids(TALK[1])
    assert first == {
        "id": "a",
        "input_ids": question + answer,
        "labels": [-100] * len(question) + answer,
        "text": "你是谁?<sep>我是源2.0。<eod>",
        "trained_text": ["我是源2.0。<eod>"],
    }
    assert second["text"] == "你是谁?<n>我是源2.0。<n>Bye\x1b[31m<sep>Bye! 😀<eod>"
    assert second["trained_text"] == ["Bye! 😀<eod>"]
    assert "2 samples -> 2 rows" in errors
    assert "1 samples without an answer" in errors


@pytest.mark.parametrize(
    ("mode", "trained"),
    [
        ("last_response_loss", [["Bye! 😀<eod>"]]),
        ("efficient_loss", [["我是源2.0。", "Bye! 😀<eod>"]]),
    ],
)
def test_modes(
    model: Path,
    data: Path,
    mode: str,
    trained: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--model", str(model), "--data_path", str(data), "--mode", mode, "--json"]
    assert main(argv) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["trained_text"] for row in rows] == trained


def json_lines(output: str) -> list[dict[str, Any]]:
    # Not splitlines, which also splits at line breaks that JSON leaves as they are.
    return [json.loads(line) for line in output.removesuffix("\n").split("\n")]


@pytest.mark.parametrize("mode", [LossMode.SPLIT_EXAMPLE, LossMode.LAST_RESPONSE])
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(samples=st.lists(conversations(), min_size=1, max_size=6))
def test_json_tells_the_served_ids_and_the_learned_answers_of_any_text(
    model: Path,
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: LossMode,
    samples: list[Sample],
) -> None:
    path = write_samples(tmp_path / "any.jsonl", samples)
    argv = ["--model", str(model), "--data-path", str(path), "--mode", mode.value, "--json"]
    assert main([*argv, "--model-max-length", "100000"]) == 0
    rows = json_lines(capsys.readouterr().out)
    split = mode is LossMode.SPLIT_EXAMPLE
    targets = [
        (sample, target)
        for sample in samples
        for target in (sample.answers if split else sample.answers[-1:])
    ]
    for row, (sample, target) in zip(rows, targets, strict=True):
        served = renderer.render(sample.messages[:target]).ids
        answer = sample.messages[target]["content"].strip().replace("▁", " ") + "<eod>"
        learned = [label for label in row["labels"] if label != IGNORED]
        assert row["id"] == sample.id
        assert row["input_ids"] == served + learned
        assert row["labels"] == [IGNORED] * len(served) + learned
        assert tokenizer.decode_ids(learned) == answer
        assert row["text"] == tokenizer.decode(row["input_ids"])
        assert row["text"].endswith("<sep>" + "".join(row["trained_text"]))
        # In the middle of a text a first space is kept that decoding it alone would drop.
        assert [text.lstrip(" ") for text in row["trained_text"]] == [answer.lstrip(" ")]


@pytest.mark.parametrize("mode", LossMode)
@pytest.mark.parametrize("limit", [12, 40, 400])
def test_it_counts_and_shows_what_training_learns(
    model: Path,
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: LossMode,
    limit: int,
) -> None:
    samples = [
        talk("你是谁?", "我是源2.0。", "Why?", "So.", "And?", "No.", system="Be brief.", name="a"),
        talk("word " * 30, "no", name="b"),
        talk("hi", "there", "so", "long " * 30, "bye", "bye", name="c"),
    ]
    path = write_samples(tmp_path / "some.jsonl", [*samples, Sample("silent", ())])
    argv = ["--model", str(model), "--data-path", str(path), "--mode", mode.value]
    argv += ["--model-max-length", str(limit)]
    assert main([*argv, "--json"]) == 0
    output, errors = capsys.readouterr()
    rows = json_lines(output)
    items = ItemReader(tokenizer, renderer, mode, limit).read([Source(str(path))])
    assert errors.strip() == str(items.stats)
    assert len(rows) == items.stats.rows
    assert sum(len(row["input_ids"]) for row in rows) == items.stats.tokens
    shown = learned_by(
        (row["input_ids"], [label != IGNORED for label in row["labels"]]) for row in rows
    )
    assert sum((learned_by_tree(items[n]) for n in range(len(items))), Counter()) == shown
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(items.stats)


def test_the_view_marks_what_is_learned_and_prints_no_control_characters(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(model), "--data-path", str(data)]) == 0
    output = capsys.readouterr().out
    assert "你是谁?<sep>⟦我是源2.0。<eod>⟧" in output
    assert "Bye\\x1b[31m<sep>⟦Bye! 😀<eod>⟧" in output
    assert "2 samples -> 2 rows" in output


@pytest.mark.parametrize(("wanted", "shown"), [("0", 0), ("1", 1), ("9", 2)])
def test_as_many_rows_as_are_wanted(
    model: Path, data: Path, wanted: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", str(model), "--data-path", str(data), "--rows", wanted]
    assert main([*argv, "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == shown
    assert main(argv) == 0
    assert capsys.readouterr().out.count("⟦") == shown


def test_what_cannot_be_used_is_said_in_one_line(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere")
    for argv, complaint in (
        (["--model", str(model), "--data-path", nowhere], "There is no data file"),
        (["--model", nowhere, "--data-path", str(data)], nowhere),
        (
            ["--model", str(model), "--data-path", str(data), "--max-length", "3"],
            "holds nothing to learn",
        ),
    ):
        assert main(argv) == 1
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert complaint in errors
    for wrong in (["--mode", "all"], ["--rows", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            main(["--model", str(model), "--data-path", str(data), *wrong])
