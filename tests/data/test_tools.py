"""What holds for every data tool: instant help, whole files, the same file twice, clear errors."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.data.reader import iter_items
from fastchat.data.tools import Tally, beside
from fastchat.data.writing import write_items
from fastchat.errors import DataError, SettingsError
from fastchat.model.tokenization_yuan import YuanTokenizer

TOOLS = {
    "clean_sharegpt": [],
    "extract_single_round": [],
    "filter_wrong_format": [],
    "merge": [],
    "optional_clean": ["--keep_lang", "zh", "--reduce_rep"],
    "optional_replace": ["--model_name_or_path", "MODEL"],
    "pretty_json": [],
    "sample": ["--max_length", "9999"],
    "split_long_conversation": ["--model-name-or-path", "MODEL", "--max-length", "400"],
}
"""Those that make one file of another, with their further flags."""
OTHERS = ("convert_alpaca", "get_stats", "hardcoded_questions", "inspect_data", "prepare_all")
ALL = sorted([*TOOLS, *OTHERS, "split_train_test"])


@pytest.fixture
def model(tokenizer: YuanTokenizer, tmp_path: Path) -> Path:
    """A model folder without weights."""
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "yuan"}')
    return folder


def talk(*texts: str, **more: Any) -> dict[str, Any]:
    turns = [
        {"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)
    ]
    return {"conversations": turns, **more}


ITEMS = [
    talk("你好，源", "你好！", "1 < 2 吗？", "是的。", id="a", model="x", plugins=[1]),
    talk("写一段代码", "```c\nif (a<b) {}\n```", id=7, system="请简短。"),
    {**talk("天气如何", "很好"), "conversations": talk("天气如何", "很好")["conversations"]},
]


def run(tool: str, *flags: object) -> int:
    name = "sampling" if tool == "sample" else tool
    status = importlib.import_module(f"fastchat.data.{name}").main(list(map(str, flags)))
    assert isinstance(status, int)
    return status


def flags_of(tool: str, model: Path | str) -> list[str]:
    return [str(model) if flag == "MODEL" else flag for flag in TOOLS[tool]]


def test_help_loads_nothing_heavy_and_every_tool_runs_as_a_module() -> None:
    probe = """
import runpy, sys
for name in sys.argv[1].split():
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(f"fastchat.data.{name}", run_name="__main__")
    except SystemExit as end:
        assert not end.code, name
    else:
        raise AssertionError(name)
print(*({"torch", "transformers", "pyarrow", "numpy", "sentencepiece"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", probe, " ".join(ALL)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}  # a tool was imported by another
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.count("usage: python -m fastchat.data.") == len(ALL)
    assert result.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_gives_the_same_file_twice_and_leaves_the_input(
    tool: str, model: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(ITEMS))
    made = []
    for _ in range(2):
        assert run(tool, "--in-file", source, "--out-file", out, *flags_of(tool, model)) == 0
        made.append(out.read_bytes())
    assert made[0] == made[1]
    assert json.loads(source.read_text()) == ITEMS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "model", "out.json"]


@pytest.mark.parametrize("tool", TOOLS)
def test_turns_and_other_fields_of_what_is_kept_stay(
    tool: str, model: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(ITEMS))
    assert run(tool, "--in_file", source, "--out_file", out, *flags_of(tool, model)) == 0
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    if tool == "extract_single_round":
        assert lines[0] == {**ITEMS[0], "conversations": ITEMS[0]["conversations"][:2]}
        assert lines[1:] == ITEMS[1:]
    elif tool == "split_long_conversation":
        assert [line.pop("id") for line in lines] == ["a_0", "7_0", "#3_0"]
        assert lines == [{key: item[key] for key in item if key != "id"} for item in ITEMS]
    else:
        assert sorted(lines, key=str) == sorted(ITEMS, key=str)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_may_write_over_its_input(tool: str, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps(ITEMS))
    flags = flags_of(tool, model)
    assert run(tool, "--in-file", source, "--out-file", out, *flags) == 0
    assert run(tool, "--in-file", source, "--out-file", source, *flags) == 0
    assert source.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "There is no data file"),
        ("", "is empty"),
        ('[{"id": 1,\n}]', "is not valid JSON"),
    ],
)
def test_bad_input_is_told_and_leaves_the_old_file(
    tool: str,
    content: str | None,
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.json"
    out.write_text("old")
    if content is not None:
        source.write_text(content)
    flags = flags_of(tool, tmp_path)
    assert run(tool, "--in-file", source, "--out-file", out, *flags) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert out.read_text() == "old"
    assert set(tmp_path.iterdir()) <= {source, out}


@pytest.mark.parametrize(
    ("out", "complaint"),
    [("nowhere/out.json", "there is no folder"), (".", "is a folder"), ("x.parquet", "is JSON")],
)
def test_where_nothing_can_be_written(
    out: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps(ITEMS))
    assert run("merge", "--in-file", source, "--out-file", tmp_path / out) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["extract_single_round", "inspect_data", "sample"])
def test_a_sample_that_is_none_is_named_with_the_way_out(
    tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps([*ITEMS, {"id": "bad", "conversations": [3]}]))
    out = [] if tool == "inspect_data" else ["--out-file", tmp_path / "out.json"]
    assert run(tool, "--in-file", source, *out) == 1
    error = capsys.readouterr().err
    assert "sample 4 (id 'bad'), turn 1," in error
    assert "filter_wrong_format leaves such samples out" in error


def test_a_range_without_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps(ITEMS))
    assert run("inspect_data", "--in-file", source, "--begin", 3) == 1
    assert "has no sample from 3 to its end" in capsys.readouterr().err
    assert run("inspect_data", "--in-file", source, "--begin", 2) == 0
    assert "no: 2, id: #3" in capsys.readouterr().out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(items=st.lists(st.dictionaries(st.text(), JSON, max_size=3)))
def test_what_is_written_reads_the_same(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    """Half characters too, which only escapes can hold."""
    for name in ("out.json", "out.jsonl"):
        assert write_items(tmp_path / name, iter(items)) == len(items)
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == items
    lines = (tmp_path / "out.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == items


def test_a_list_is_written_as_json_writes_it(tmp_path: Path) -> None:
    write_items(tmp_path / "a.json", ITEMS)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert text == json.dumps(ITEMS, ensure_ascii=False, indent=2) + "\n"


def test_columns_that_only_parquet_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.json"
    command = ["--in-file", source, "--out-file", out]
    pq.write_table(pa.table({"day": [dt.date(2024, 2, 29)]}), source)
    assert run("merge", *command) == 0
    assert json.loads(out.read_text()) == [{"day": "2024-02-29"}]
    pq.write_table(pa.table({"picture": [b"x"]}), source)
    assert run("merge", *command) == 1
    assert "A field holds bytes" in capsys.readouterr().err
    assert json.loads(out.read_text()) == [{"day": "2024-02-29"}]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("old")

    def items() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_items(out, items())
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_items(link, [])
    assert link.is_symlink()
    assert target.read_text() == "[]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_devices_are_not_replaced() -> None:
    with pytest.raises(SettingsError, match="no regular file"):
        write_items("/dev/full", [])


def test_names_beside_a_file() -> None:
    assert beside("a/x.json", "train") == Path("a/x_train.json")
    assert beside("x.jsonl", "train") == Path("x_train.jsonl")
    assert beside("x.parquet", "train") == Path("x_train.json")
    assert beside("x", "train") == Path("x_train.json")


def test_a_tally_is_a_sentence() -> None:
    tally = Tally()
    tally.keep()
    assert str(tally) == "1 samples: 1 kept, 0 dropped"
    for reason in ("too short", "seen before", "too short"):
        tally.drop(reason)
    tally.note("turns changed", 4)
    assert str(tally) == (
        "4 samples: 1 kept, 3 dropped (2 too short, 1 seen before); 4 turns changed"
    )


def test_a_value_alone_is_no_list_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": []}')
    with pytest.raises(DataError, match="holds an object at its top"):
        list(iter_items(path))
