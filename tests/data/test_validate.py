"""The tool shows rows as training sees them, and says what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastchat.chat import YuanChatRenderer
from fastchat.data.validate import main
from fastchat.model.tokenization_yuan import YuanTokenizer

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
