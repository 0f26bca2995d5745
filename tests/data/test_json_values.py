"""A streamed file gives what json.loads gives, wherever its pieces end, and its errors' places."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastchat.data import json_values
from fastchat.data.json_values import JsonValues
from fastchat.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)
ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


@pytest.fixture(params=[1, 1 << 20])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that are read at a time."""
    monkeypatch.setattr(json_values, "_PIECE", request.param)
    return request.param


def values(tmp_path: Path, text: str, name: str = "a.json", **options: Any) -> list[Any]:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return list(JsonValues(path, **options))


@ONE_FOLDER
@given(items=st.lists(VALUES), indent=st.none() | st.integers(0, 3), ascii_only=st.booleans())
def test_a_list_gives_its_items(
    tmp_path: Path, piece: int, items: list[Any], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    assert values(tmp_path, f" \n{text}\r\n", inner=False) == items


@ONE_FOLDER
@given(items=st.lists(OBJECTS, min_size=1), indent=st.none() | st.integers(0, 3))
def test_values_one_after_the_other(
    tmp_path: Path, piece: int, items: list[Any], indent: int | None
) -> None:
    text = "\n".join(json.dumps(item, indent=indent, ensure_ascii=False) for item in items)
    assert values(tmp_path, text) == items


@ONE_FOLDER
@given(items=st.lists(VALUES, min_size=1), end=st.sampled_from(["\n", "\r\n", "\n\n \n"]))
def test_json_lines(tmp_path: Path, piece: int, items: list[Any], end: str) -> None:
    text = end.join(json.dumps(item, ensure_ascii=False) for item in items)
    assert values(tmp_path, text, "a.jsonl") == items


@ONE_FOLDER
@given(items=st.lists(OBJECTS, min_size=1), at=st.integers(0), junk=st.sampled_from('"{}[],:x\n'))
@example(items=[{}], at=1, junk="[")
def test_a_broken_list_is_told_where_json_tells_it(
    tmp_path: Path, piece: int, items: list[Any], at: int, junk: str
) -> None:
    """At the same line and column, or after good items that json.loads would not have given."""
    text = json.dumps(items, indent=1, ensure_ascii=False)
    place = at % len(text)
    text = text[:place] + junk + text[place + 1 :]
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(DataError) as raised:
            values(tmp_path, text)
        where = f"at line {error.lineno}, column {error.colno}."
        assert where in str(raised.value) or "side by side" in str(raised.value)
    else:
        if isinstance(expected, list):
            assert values(tmp_path, text, inner=False) == expected


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_error_far_into_a_file_names_its_line_and_column(
    tmp_path: Path, piece: int, name: str
) -> None:
    lines = [json.dumps({"text": "语" * number}, ensure_ascii=False) for number in range(60)]
    lines[50] = lines[50].replace(":", ";")
    text = ("[\n" + ",\n".join(lines) + "\n]") if name == "a.json" else "\n".join(lines)
    line = 52 if name == "a.json" else 51
    with pytest.raises(DataError, match=rf"Expecting ':' delimiter at line {line}, column 8\."):
        values(tmp_path, text, name)


def test_a_broken_value_ends_the_reading_before_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2, nonsense, " + "0, " * (3 << 20))
    with pytest.raises(DataError, match=r"line 1, column 8\."):
        list(JsonValues(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        ("[[]]", []),
        ("[[1, 2], [], [3]]", [1, 2, 3]),
        ("[[[1]]]", [[1]]),
        ("\ufeff[1]", [1]),
        ("[1.5e3, -7, 12345678901234567890]", [1.5e3, -7, 12345678901234567890]),
    ],
)
def test_lists_in_lists_and_small_files(
    tmp_path: Path, piece: int, text: str, expected: list[Any]
) -> None:
    assert values(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1, 2", "Expecting ',' delimiter at line 1, column 6"),
        ("[1,]", "Expecting value at line 1, column 4"),
        ("[[1],]", "Expecting value at line 1, column 6"),
        ("[[1], 2]", "lists and other values side by side in one list: line 1, column 7"),
        ("[1] 2", "Extra data at line 1, column 5"),
        ("1 2", "Extra data at line 1, column 3"),
        ('["a', "Unterminated string starting at at line 1, column 2"),
        ("[" * 100_000, "nested too deeply at line 1, column"),
        (" \n ", "is empty"),
    ],
)
def test_what_is_no_json(tmp_path: Path, piece: int, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        values(tmp_path, text)


def test_two_values_on_a_line_of_json_lines(tmp_path: Path, piece: int) -> None:
    with pytest.raises(DataError, match="Extra data at line 2, column 4"):
        values(tmp_path, "{}\n{} {}", "a.jsonl")


@pytest.mark.parametrize(("text", "alone"), [('{"a": 1}', True), ("{}{}", False), ("[{}]", False)])
def test_a_value_knows_whether_it_is_alone(tmp_path: Path, text: str, alone: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    stream = JsonValues(path)
    assert [stream.alone for _ in stream][0] is alone  # noqa: RUF015 - all have to be read


def test_a_bad_byte_is_named_by_its_place(tmp_path: Path, piece: int) -> None:
    path = tmp_path / "a.json"
    good = '["语言", "'.encode()
    path.write_bytes(good + b'\xff"]')
    with pytest.raises(DataError, match=rf"not UTF-8 text \(byte {len(good)} cannot be read\)"):
        list(JsonValues(path))


def test_an_inner_list_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert values(tmp_path, "[[1], [2]]") == [1, 2]
        assert values(tmp_path, "[[1], [2]]", inner=False) == [[1], [2]]
    assert len(caplog.records) == 1


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    import tracemalloc

    monkeypatch.setattr(json_values, "_PIECE", 1 << 12)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 100}] * 20_000))
    tracemalloc.start()
    count = sum(1 for _ in JsonValues(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < path.stat().st_size / 10
