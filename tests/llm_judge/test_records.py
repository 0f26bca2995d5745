"""Files that grow record by record: nothing is lost, nothing is half there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.errors import DataError, SettingsError
from fastchat.llm_judge.records import append_record, read_records, settle

LINE = '{"id": 1}\n'


def by_id(record):
    return record["id"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    text=st.text(st.characters(codec=None, categories=None), max_size=20), cut=st.integers(0, 40)
)
def test_whatever_is_left_of_a_last_line_the_records_before_it_stay(tmp_path, text, cut):
    path = tmp_path / "file.jsonl"
    path.unlink(missing_ok=True)
    append_record(path, {"id": 1, "text": text})
    whole = path.read_bytes()
    torn = whole[: min(cut, len(whole) - 2)]
    path.write_bytes(whole + torn)
    assert read_records(path) == [{"id": 1, "text": text}]
    append_record(path, {"id": 2})
    assert read_records(path) == [{"id": 1, "text": text}, {"id": 2}]


def test_a_last_line_without_its_break_counts(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(LINE + '{"id": 2}')
    append_record(path, {"id": 3})
    assert [record["id"] for record in read_records(path)] == [1, 2, 3]


def test_settling_sorts_and_the_last_one_wins(tmp_path):
    path = tmp_path / "file.jsonl"
    for number, value in ((3, "a"), (1, "b"), (3, "c"), (2, "d")):
        append_record(path, {"id": number, "value": value})
    settle(path, by_id, by_id)
    assert [(each["id"], each["value"]) for each in read_records(path)] == [
        (1, "b"),
        (2, "d"),
        (3, "c"),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(LINE + "{nonsense\n" + LINE)
    with pytest.raises(DataError, match="line 2"):
        read_records(path)
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="no JSON object"):
        read_records(path)


def test_a_path_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"):
        append_record(tmp_path / "file" / "x.jsonl", {})


WRITER = """
import sys
from pathlib import Path
from fastchat.llm_judge.records import append_record, settle
path, name = Path(sys.argv[1]), sys.argv[2]
for number in range(60):
    append_record(path, {"id": f"{name}{number:02}", "text": "x" * 5000})
    if number % 10 == 9:
        settle(path, lambda each: each["id"], lambda each: each["id"])
"""


def test_processes_that_write_and_settle_at_once_lose_nothing(tmp_path):
    path = tmp_path / "file.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = sorted(json.loads(line)["id"] for line in path.read_text().splitlines())
    assert found == [f"{name}{number:02}" for name in "ab" for number in range(60)]
