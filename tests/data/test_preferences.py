"""Preferences: what is read, what is refused, and what their trees hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.chat import YuanChatRenderer
from fastchat.data.building import BLOCK
from fastchat.data.formats import Place
from fastchat.data.pairs import PairBuilder, read_pairs, rejected_start, summary
from fastchat.data.preferences import Preference, iter_chosen, iter_preferences, preference_of
from fastchat.data.rows import RowStats
from fastchat.data.sources import Source
from fastchat.errors import DataError
from fastchat.model.tokenization_yuan import YuanTokenizer

PLACE = Place("pairs.json", 3, "c")
USER = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello!"}


def of(**item: Any) -> Preference:
    return preference_of(item, PLACE)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


@pytest.mark.parametrize(
    "item",
    [
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"},
        {"prompt": [USER], "chosen": HELLO, "rejected": "What?"},
        {"prompt": "Hi", "chosen": [HELLO], "rejected": [HELLO | {"content": "What?"}]},
        {"prompt": [USER], "chosen": [USER, HELLO], "rejected": "What?"},
        {"chosen": [USER, HELLO], "rejected": [USER, HELLO | {"content": "What?"}]},
        {"prompt": None, "chosen": [USER, HELLO], "rejected": "What?"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "chosen": "Hello!",
            "rejected": "What?",
        },
    ],
)
def test_all_ways_to_say_the_same(item: dict[str, Any]) -> None:
    assert of(**item) == Preference("c", (USER,), "Hello!", "What?")


def test_a_system_text_stands_in_its_field_or_first() -> None:
    expected = (system("Be kind."), USER)
    assert of(prompt="Hi", chosen="a", rejected="b", system="Be kind.").prompt == expected
    assert of(prompt=[system("Be kind."), USER], chosen="a", rejected="b").prompt == expected
    both = {"prompt": [system("Be kind."), USER], "system": "Be rude."}
    with pytest.raises(DataError, match=r"sample 3 \(id 'c'\) has a system text both"):
        of(**both, chosen="a", rejected="b")


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ([1], "is a list, not an object with 'prompt', 'chosen' and 'rejected'"),
        ({"prompt": "Hi", "chosen": "a"}, "has no 'rejected'. Its keys are: 'prompt', 'chosen'"),
        ({"prompt": "Hi", "chosen": None, "rejected": "a"}, "has no 'chosen'"),
        ({"question": "Hi", "chosen": "a", "rejected": "b"}, "has no 'prompt'"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "has a number as 'prompt'"),
        ({"prompt": "Hi", "chosen": 7, "rejected": "b"}, "has a number as 'chosen'"),
        ({"prompt": "Hi", "chosen": "a\ud800", "rejected": "b"}, "half a character .* 'chosen'"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "does not end with a question"),
        ({"prompt": [USER, HELLO], "chosen": "a", "rejected": "b"}, "does not end with a question"),
        ({"prompt": [HELLO, USER], "chosen": "a", "rejected": "b"}, "turn 1, is from 'assistant'"),
        ({"prompt": [{"role": "bot", "content": ""}], "chosen": "a", "rejected": "b"}, "'bot'.*in"),
        ({"prompt": "Hi", "chosen": [USER], "rejected": "b"}, "'chosen' that does not end with"),
        ({"prompt": "Hi", "chosen": "a", "rejected": []}, "'rejected' that does not end with"),
        (
            {"prompt": "Ho", "chosen": "a", "rejected": [USER, HELLO]},
            "another conversation before the answer of 'rejected'",
        ),
        (
            {"chosen": [USER, HELLO], "rejected": [user("Ho"), HELLO]},
            "another conversation before the answer of 'rejected'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_sample(item: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)^pairs\.json: sample 3 \(id 'c'\).*{complaint}"):
        preference_of(item, PLACE)


def items(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{number}+1=?", "chosen": f"{number + 1}", "rejected": f"{number}"}
        for number in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(item) + "\n" for item in content))
    else:
        path.write_text(json.dumps(content))
    return path


def test_every_kind_of_file_holds_the_same(tmp_path: Path) -> None:
    files = [write(tmp_path / f"pairs.{kind}", items(3)) for kind in ("json", "jsonl", "parquet")]
    first, *others = ([*iter_preferences(file)] for file in files)
    assert [preference.id for preference in first] == ["#1", "#2", "#3"]
    assert others == [first, first]
    (alone,) = iter_preferences(write(tmp_path / "one.jsonl", items(1)))
    (tmp_path / "one.json").write_text(json.dumps(items(1)[0]))
    assert [*iter_preferences(tmp_path / "one.json")] == [alone]
    assert next(iter_chosen(files[0])).messages[-1]["content"] == "1"


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    for name, text in (("empty.json", ""), ("list.json", "[]"), ("broken.jsonl", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            list(iter_preferences(tmp_path / name))
    with pytest.raises(DataError, match="no data file"):
        list(iter_preferences(tmp_path / "nowhere.json"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(st.text("ab 好<n>?", max_size=8), min_size=1, max_size=5).filter(
        lambda texts: len(texts) % 2 == 1
    ),
    start=st.text("ab好", max_size=4),
    ends=st.tuples(st.text("xy ", max_size=4), st.text("xy ", max_size=4)),
    max_length=st.integers(4, 60),
)
def test_a_tree_holds_prompt_and_answers_as_they_are_served(
    renderer: YuanChatRenderer,
    texts: list[str],
    start: str,
    ends: tuple[str, str],
    max_length: int,
) -> None:
    prompt = tuple(
        {"role": ("user", "assistant")[index % 2], "content": text}
        for index, text in enumerate(texts)
    )
    preference = Preference("p", prompt, start + ends[0], start + ends[1])
    stats = RowStats()
    tree = PairBuilder(renderer, max_length).tree(preference, stats)
    answers = [renderer.answer_ids(start + end) for end in ends]
    served = [renderer.render(prompt[first:]).ids for first in range(0, len(prompt), 2)]
    room = max_length - max(map(len, answers))
    fitting = next((ids for ids in served if len(ids) <= room), None)
    if answers[0] == answers[1] or fitting is None:
        assert tree is None
        assert stats.rows == 0
        return
    assert tree is not None
    rows = tree.rows()
    assert [ids.tolist() for ids, _ in rows] == [fitting + answer for answer in answers]
    for (ids, learned), answer in zip(rows, answers, strict=True):
        assert ids[learned].tolist() == answer
    assert len(tree) == len(fitting) + sum(map(len, answers))
    nodes = tree.learned_nodes()
    assert np.count_nonzero(nodes < rejected_start(tree)) == len(answers[0])
    assert (stats.rows, stats.samples) == (2, 1)


def test_pairs_on_disk_are_those_in_memory(
    tmp_path: Path,
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTCHAT_CACHE", str(tmp_path / "cache"))
    many = [*items(BLOCK + 5), {"prompt": "Hi", "chosen": "a", "rejected": "a "}]
    path = write(tmp_path / "many.jsonl", many)
    cached = read_pairs([Source(str(path))], tokenizer, renderer, 512)
    (stored,) = (tmp_path / "cache").glob("*.arrow")
    written = stored.stat().st_mtime_ns
    again = read_pairs([Source(str(path))], tokenizer, renderer, 512)
    assert stored.stat().st_mtime_ns == written
    few = write(tmp_path / "few.jsonl", many[-10:])
    held = read_pairs([Source(str(few), 2)], tokenizer, renderer, 512)
    assert (len(cached), len(again), len(held)) == (BLOCK + 5, BLOCK + 5, 18)
    for index in range(9):
        on_disk, in_memory = cached[BLOCK - 4 + index], held[index]
        assert on_disk.input_ids.tolist() == in_memory.input_ids.tolist()
        assert rejected_start(on_disk) == rejected_start(in_memory)
        assert [*map(tuple, on_disk.learned)] == [*map(tuple, in_memory.learned)]
    assert "1 pairs left out: both answers the same" in summary(again.stats)


def test_nothing_to_learn_is_an_error_that_says_why(
    tmp_path: Path, tokenizer: YuanTokenizer, renderer: YuanChatRenderer
) -> None:
    same = write(tmp_path / "same.json", [{"prompt": "Hi", "chosen": "a", "rejected": "a"}])
    long = write(tmp_path / "long.json", items(2))
    with pytest.raises(DataError, match=r"same\.json holds nothing.*1 pairs left out: both"):
        read_pairs([Source(str(same))], tokenizer, renderer, 512)
    with pytest.raises(DataError, match=r"2 pairs left out: too long.*--model_max_length"):
        read_pairs([Source(str(long))], tokenizer, renderer, 3)
