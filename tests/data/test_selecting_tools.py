"""Tools that choose, divide and count: convert, split, sample, extract, stats, inspect."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data import (
    convert_alpaca,
    extract_single_round,
    get_stats,
    inspect_data,
    merge,
    pretty_json,
    sampling,
    split_long_conversation,
    split_train_test,
)
from fastchat.data.formats import Turn
from fastchat.data.get_stats import quantile
from fastchat.data.reader import read_samples
from fastchat.data.split_long_conversation import split_rounds
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.data.conftest import read_json as read
from tests.data.conftest import talk_item as talk
from tests.data.conftest import write_json as write


def test_alpaca_becomes_sharegpt(tmp_path: Path) -> None:
    items = [
        {"instruction": "Add", "input": "1+1", "output": "2", "model": "x"},
        {"instruction": "Hi", "input": "", "output": "Hello", "system": "Be kind."},
        {"instruction": "Human:a\nAssistant:b\nHuman:c", "output": "d", "id": "own"},
    ]
    source, out = write(tmp_path / "in.json", items), tmp_path / "out.json"
    assert convert_alpaca.main(["--in-file", str(source), "--out-file", str(out)]) == 0
    assert read(out) == [
        talk("Add\nInput:\n1+1", "2", id="alpaca_0", model="x"),
        talk("Hi", "Hello", id="alpaca_1", system="Be kind."),
        talk("a", "b", "c", "d", id="own"),
    ]
    assert read_samples(out) == read_samples(source)


def test_what_is_no_alpaca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.json", [talk("a", "b")])
    out = str(tmp_path / "out.json")
    assert convert_alpaca.main(["--in-file", str(source), "--out-file", out]) == 1
    assert "sample 1 (id '#1') has no 'instruction'" in capsys.readouterr().err


def test_turns_of_alpaca_items_are_not_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.json", [{"instruction": "a", "output": "b"}])
    assert inspect_data.main(["--in-file", str(source)]) == 1
    assert "python -m fastchat.data.convert_alpaca" in capsys.readouterr().err


@given(
    lengths=st.lists(st.integers(1, 30), max_size=12),
    room=st.integers(-5, 40),
)
def test_rounds_are_dealt_whole_and_in_order(lengths: list[int], room: int) -> None:
    rounds = [
        (Turn(2 * n + 1, "human", ""), Turn(2 * n + 2, "gpt", "")) for n in range(len(lengths))
    ]
    pieces = split_rounds(rounds, lengths, room)
    kept = [pair for _, part in pieces for pair in part]
    assert kept == [pair for pair, length in zip(rounds, lengths, strict=True) if length <= room]
    for start, part in pieces:
        first = start // 2
        assert part == rounds[first : first + len(part)]
        assert sum(lengths[first : first + len(part)]) <= room
    for (start, part), (after, _) in pairwise(pieces):
        used = sum(lengths[start // 2 : start // 2 + len(part)])
        next_length = lengths[start // 2 + len(part)]
        assert used + next_length > room, "as few pieces as they fit in"
        assert after >= start + 2 * len(part)


@pytest.fixture
def model(tokenizer: YuanTokenizer, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "yuan"}')
    return folder


def test_a_long_conversation_is_split(
    tmp_path: Path, model: Path, tokenizer: YuanTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    item = talk("你是谁？", "源2.0", "a", "b", "long " * 400, "x", "c", "d", "open", id="t", m=1)
    item["conversations"].insert(0, {"from": "system", "value": "S"})
    other = {"id": "o", "conversations": [{"from": "human", "value": "x"}] * 2}
    source, out = write(tmp_path / "in.json", [item, other]), tmp_path / "out.json"
    counts = [len(tokenizer(turn["value"])["input_ids"]) + 6 for turn in item["conversations"][:5]]
    command = ["--in-file", str(source), "--out-file", str(out), "--model_name_or_path", str(model)]
    turns = item["conversations"]

    assert split_long_conversation.main([*command, "--max-length", str(sum(counts))]) == 0
    pieces = [(piece["id"], piece["conversations"], piece["m"]) for piece in read(out)]
    assert pieces == [("t_0", turns[:5], 1), ("t_6", [turns[0], *turns[7:9]], 1)]
    printed = capsys.readouterr().out
    assert "2 samples: 1 kept, 1 dropped (1 with turns out of order)" in printed
    assert "1 rounds too long by themselves left out; 2 pieces" in printed

    assert split_long_conversation.main([*command, "--max-length", str(sum(counts) - 1)]) == 0
    assert [piece["id"] for piece in read(out)] == ["t_0", "t_2", "t_6"]


def test_samples_are_drawn_by_characters_and_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [talk("q", "x" * n, id=n) for n in range(10)]
    source, out = write(tmp_path / "in.json", items), tmp_path / "out.json"
    command = ["--in-file", str(source), "--out-file", str(out)]
    assert sampling.main([*command, "--keep-order", "--end", "8", "--max-length", "6"]) == 0
    assert [item["id"] for item in read(out)] == [0, 1, 2, 3, 4, 5]
    assert "8 samples: 6 kept, 2 dropped (2 longer than 6 characters)" in capsys.readouterr().out
    assert sampling.main([*command, "--begin", "2", "--end", "5"]) == 0
    assert len(read(out)) == 3
    assert sampling.main([*command, "--begin", "10"]) == 1
    assert "Nothing of" in capsys.readouterr().err


def test_a_file_is_divided_without_loss(tmp_path: Path) -> None:
    items = [talk("q", "a", id=n) for n in range(50)]
    source = write(tmp_path / "chat.json", items)
    command = ["--in-file", str(source), "--begin", "10", "--end", "30"]
    assert split_train_test.main([*command, "--ratio", "0.75"]) == 0
    train, test = read(tmp_path / "chat_train.json"), read(tmp_path / "chat_test.json")
    assert (len(train), len(test)) == (15, 5)
    assert sorted(item["id"] for item in train + test) == list(range(10, 30))
    assert [item["id"] for item in train] != sorted(item["id"] for item in train)


def test_too_little_to_divide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "chat.json", [talk("q", "a")])
    assert split_train_test.main(["--in-file", str(source)]) == 1
    assert "leave 0 to train on and 1 to test with" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        split_train_test.main(["--in-file", str(source), "--ratio", "1"])


def test_the_first_round_is_extracted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    items = [talk("a", "b", "c", "d"), {"messages": messages}, talk("alone")]
    source = write(tmp_path / "chat.json", items)
    assert extract_single_round.main(["--in-file", str(source)]) == 0
    assert read(tmp_path / "chat_single.json") == [talk("a", "b"), {"messages": messages[:3]}]
    assert "1 dropped (1 without an answer)" in capsys.readouterr().out


def test_files_are_merged_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", [{"instruction": "x"}, talk("a", "b")])
    (tmp_path / "b.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    out = tmp_path / "out.json"
    files = [str(first), str(tmp_path / "b.jsonl")]
    assert merge.main(["--in-file", *files, "--out-file", str(out)]) == 0
    assert read(out) == [{"instruction": "x"}, talk("a", "b"), {"id": 1}, {"id": 2}]


@pytest.mark.parametrize("value", [None, 3, "x", {"b": [1]}, [[1], 2], [[1, 2]], [], [1.5, "语"]])
def test_any_json_is_printed_prettily(tmp_path: Path, value: Any) -> None:
    source, out = write(tmp_path / "in.json", value), tmp_path / "out.json"
    assert pretty_json.main(["--in-file", str(source), "--out-file", str(out)]) == 0
    expected = json.dumps(value, ensure_ascii=False, indent=2)
    assert out.read_text("utf-8") == expected + "\n"


def test_lengths_are_counted(
    tmp_path: Path,
    model: Path,
    tokenizer: YuanTokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    items = [talk("ab", "c", system="你好"), talk("def", "gh", "i", "j" * 50), talk("open")]
    source = write(tmp_path / "in.json", items)
    assert get_stats.main(["--in-file", str(source)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["samples", "3"], ["turns", "6"], ["characters", "61"]]
    assert lines[-2] == ["characters", "a", "question", "2.0", "2", "3", "3", "3"]
    assert lines[-1] == ["characters", "an", "answer", "17.7", "2", "50", "50", "50"]
    assert get_stats.main(["--in-file", str(source), "--model-name-or-path", str(model)]) == 0
    tokens = sum(
        len(tokenizer(text)["input_ids"])
        for text in ("ab", "c", "你好", "def", "gh", "i", "j" * 50)
    )
    assert ["tokens", str(tokens)] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


@given(values=st.lists(st.integers(0, 9), min_size=1), share=st.floats(0.01, 1))
def test_a_quantile_covers_its_share(values: list[int], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < share * len(ordered)


def test_conversations_are_printed_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [talk("a\x1b[31m", "b", id=f"i{n}") for n in range(5)]
    source = write(tmp_path / "in.json", items)
    command = ["--in-file", str(source)]
    assert inspect_data.main([*command, "--begin", "3"]) == 0
    output = capsys.readouterr().out
    assert "no: 3, id: i3\nhuman:\na\\x1b[31m\ngpt:\nb\n" in output
    assert output.count("no: ") == 2
    printed = []
    for _ in range(2):
        assert inspect_data.main([*command, "--random-n", "2", "--seed", "1"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("no: ") == 2
