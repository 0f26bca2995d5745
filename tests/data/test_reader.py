"""What the reader takes, what it leaves out and what it says of the rest."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fastchat.data.reader import read_samples
from fastchat.errors import DataError

HELLO = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]


def write(tmp_path: Path, content: Any, name: str = "chat.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def conversation(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "x", "conversations": [{"from": f, "value": v} for f, v in turns], **more}


def test_a_conversation_becomes_messages_with_openai_roles(tmp_path: Path) -> None:
    (sample,) = read_samples(write(tmp_path, [{"id": "greeting", "conversations": HELLO}]))
    assert sample.id == "greeting"
    assert sample.messages == (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
    )
    assert list(sample.answers) == [1]


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.JSONL", "chat.json", "chat"])
def test_json_lines_are_told_by_suffix_or_by_content(tmp_path: Path, name: str) -> None:
    lines = [{"id": i, "conversations": HELLO} for i in range(3)]
    text = "\n".join(json.dumps(line) for line in lines[:2]) + "\r\n\n" + json.dumps(lines[2])
    assert [s.id for s in read_samples(write(tmp_path, text, name))] == ["0", "1", "2"]


def test_a_single_object_is_a_file_of_one_line(tmp_path: Path) -> None:
    assert len(read_samples(write(tmp_path, {"id": "1", "conversations": HELLO}))) == 1


def test_line_separators_inside_strings_do_not_end_a_line(tmp_path: Path) -> None:
    line = json.dumps({"id": "a\u2028b", "conversations": HELLO}, ensure_ascii=False)
    assert read_samples(write(tmp_path, line, "chat.jsonl"))[0].id == "a\u2028b"


def test_one_bracket_too_many_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        samples = read_samples(write(tmp_path, [[{"id": "1", "conversations": HELLO}]]))
    assert [s.id for s in samples] == ["1"]
    assert "inside another list" in caplog.text


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([{"conversations": HELLO}]).encode())
    assert read_samples(path)[0].id == "#1"


def test_a_turn_before_the_first_question_is_left_out(tmp_path: Path) -> None:
    turns = conversation(("gpt", "Welcome"), ("human", "Hi"), ("gpt", "Hello!"))
    (sample,) = read_samples(write(tmp_path, [turns]))
    assert sample.leading_dropped
    assert not sample.trailing_dropped
    assert [m["content"] for m in sample.messages] == ["Hi", "Hello!"]


def test_a_last_question_without_answer_is_left_out(tmp_path: Path) -> None:
    turns = conversation(("human", "Hi"), ("gpt", "Hello!"), ("human", "And?"))
    (sample,) = read_samples(write(tmp_path, [turns]))
    assert sample.trailing_dropped
    assert not sample.leading_dropped
    assert [m["content"] for m in sample.messages] == ["Hi", "Hello!"]


@pytest.mark.parametrize(
    "turns", [[], [("human", "Hi")], [("gpt", "Hello!")], [("gpt", "a"), ("human", "b")]]
)
def test_a_conversation_without_an_answer_has_no_messages(
    tmp_path: Path, turns: list[tuple[str, str]]
) -> None:
    (sample,) = read_samples(write(tmp_path, [conversation(*turns, system="Be kind.")]))
    assert sample.messages == ()
    assert not sample.answers


@pytest.mark.parametrize(
    "item",
    [
        conversation(("human", "Hi"), ("gpt", "Hello!"), system="Be kind."),
        conversation(("system", "Be kind."), ("human", "Hi"), ("gpt", "Hello!")),
        conversation(("system", "Be kind."), ("gpt", "!"), ("human", "Hi"), ("gpt", "Hello!")),
    ],
)
def test_a_system_text_comes_first(tmp_path: Path, item: dict[str, Any]) -> None:
    (sample,) = read_samples(write(tmp_path, [item]))
    assert sample.messages[0] == {"role": "system", "content": "Be kind."}
    assert sample.first_question == 1
    assert list(sample.answers) == [2]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "holds no samples"),
        ("[[]]", "holds no samples"),
        ('[\n{"id": 1,}\n]', r"is not valid JSON: .* at line 2, column 10\."),
        ("[" * 100_000, "nested too deeply"),
        ('{"data": []}', "holds an object at its top"),
        ('"text"', "holds a string at its top"),
        ("null", "holds null at its top"),
        ('["text"]', r"sample 1 \(id '#1'\) is a string, not an object"),
        ('[{"id": "a"}]', r"sample 1 \(id 'a'\) needs a list .* it is missing"),
        ('[{"conversations": {}}]', r"it is an object\. Its keys are: 'conversations'"),
        ('[{"id": "a", "conversations": ["x"]}]', "turn 1, is not an object with"),
        ('[{"id": "a", "conversations": [{"from": "human"}]}]', "turn 1, is not an object with"),
    ],
)
def test_errors_say_what_is_wrong_with_the_file(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=complaint) as raised:
        read_samples(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        ([("human", "Hi"), ("robot", "!")], r"turn 2, has the role 'robot'.*'human', 'gpt'"),
        ([("human", "Hi"), ("system", "!")], "turn 2, has the role 'system'"),
        ([(["human"], "Hi")], r"turn 1, has the role \['human'\]"),
        ([("human", 3)], "turn 1, has a number as 'value'; a string is needed"),
        ([("human", None)], "turn 1, has null as 'value'"),
        ([("human", "\ud83d")], "turn 1, holds half a character .* at position 0"),
        ([("human", "a"), ("human", "b")], "turn 2, is from 'human' where one from 'gpt'"),
        ([("gpt", "a"), ("gpt", "b")], "turn 2, is from 'gpt' where one from 'human'"),
        ([("human", "a"), ("gpt", "b"), ("gpt", "c")], "turn 3, is from 'gpt'"),
    ],
)
def test_errors_name_file_sample_and_turn(
    tmp_path: Path, turns: list[tuple[Any, Any]], complaint: str
) -> None:
    path = write(tmp_path, [{"conversations": HELLO}, conversation(*turns)])
    with pytest.raises(DataError, match=complaint) as raised:
        read_samples(path)
    assert f"{path}: sample 2 (id 'x')" in str(raised.value)


def test_a_system_text_in_two_places_is_refused(tmp_path: Path) -> None:
    item = conversation(("system", "a"), ("human", "b"), ("gpt", "c"), system="d")
    with pytest.raises(DataError, match="both under 'system' and as its first turn"):
        read_samples(write(tmp_path, [item]))


def test_broken_lines_are_named_by_their_line(tmp_path: Path) -> None:
    good = json.dumps({"conversations": HELLO})
    with pytest.raises(DataError, match="at line 3, column 1"):
        read_samples(write(tmp_path, f"{good}\n\nnonsense\n", "chat.jsonl"))


def test_missing_unreadable_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no data file"):
        read_samples(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_samples(tmp_path)
    binary = tmp_path / "data.json"
    binary.write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_samples(binary)
