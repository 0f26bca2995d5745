"""Every format gives the same samples, and says what is wrong in its own words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data.formats import place_of
from fastchat.data.plain_samples import plain_sample
from fastchat.data.reader import iter_samples, read_samples, sample_of
from fastchat.data.sample import Sample
from fastchat.errors import DataError, SettingsError

TALK = [
    ("user", "Hi"),
    ("assistant", "Hello!"),
    ("user", "你是谁？"),
    ("assistant", "我是源2.0。"),
]
SYSTEM = {"role": "system", "content": "Be kind."}


def openai(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], **more}


def sharegpt(names: tuple[str, str] = ("human", "gpt"), **more: Any) -> dict[str, Any]:
    words = {"user": names[0], "assistant": names[1]}
    turns = [{"from": words[role], "value": text} for role, text in TALK]
    return {"conversations": turns, **more}


ALPACA = {
    "instruction": TALK[2][1],
    "input": "",
    "output": TALK[3][1],
    "history": [[TALK[0][1], TALK[1][1]]],
}
BELLE = {
    "instruction": "Human:Hi\nAssistant:Hello!\nHuman：你是谁？\n",
    "input": "",
    "output": TALK[3][1],
}
SAME = {
    "sharegpt": sharegpt(),
    "belle's roles": sharegpt(("human", "assistant")),
    "openai's roles": sharegpt(("user", "assistant")),
    "openai": openai(*TALK),
    "parts": openai(*((role, [{"type": "text", "text": text}]) for role, text in TALK)),
    "alpaca": ALPACA,
    "belle": BELLE,
    "belle, asking": BELLE | {"instruction": BELLE["instruction"] + "Assistant:"},
}


def write(tmp_path: Path, items: list[Any], name: str = "chat.json") -> Path:
    path = tmp_path / name
    if name.endswith(".parquet"):
        columns = {key: [item.get(key) for item in items] for item in items for key in item}
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(json.dumps(items))
    return path


def read_one(tmp_path: Path, item: Any, name: str = "chat.json") -> Sample:
    (sample,) = read_samples(write(tmp_path, [item], name))
    return sample


@pytest.mark.parametrize("name", ["chat.json", "chat.parquet"])
@pytest.mark.parametrize("item", SAME.values(), ids=SAME.keys())
def test_all_formats_say_the_same(tmp_path: Path, item: dict[str, Any], name: str) -> None:
    sample = read_one(tmp_path, item, name)
    assert list(sample.messages) == [{"role": role, "content": text} for role, text in TALK]
    assert not sample.leading_dropped
    assert not sample.trailing_dropped


@pytest.mark.parametrize("name", ["chat.json", "chat.parquet"])
@pytest.mark.parametrize(
    "item",
    [
        sharegpt(system="Be kind."),
        openai(("system", "Be kind."), *TALK),
        openai(*TALK, system="Be kind."),
        ALPACA | {"system": "Be kind."},
    ],
)
def test_every_format_can_have_a_system_text(
    tmp_path: Path, item: dict[str, Any], name: str
) -> None:
    assert read_one(tmp_path, item, name).messages[0] == SYSTEM


@pytest.mark.parametrize("name", ["chat.json", "chat.parquet"])
def test_kinds_may_be_mixed_and_keep_their_ids(tmp_path: Path, name: str) -> None:
    items = [sharegpt(id="a"), openai(*TALK, id="b"), BELLE, openai(*TALK)]
    ids = [sample.id for sample in iter_samples(write(tmp_path, items, name))]
    assert ids == ["a", "b", "alpaca_2", "#4"]


def test_content_parts_are_joined_as_they_are_served(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sample = read_one(tmp_path, openai(("user", parts), ("assistant", "c")))
    assert sample.messages[0]["content"] == "a\nb"


@pytest.mark.parametrize(
    ("extra", "question"),
    [("", "Add"), (None, "Add"), ("1", "Add"), ("1+1", "Add\nInput:\n1+1")],
)
def test_an_alpaca_input_is_part_of_the_question(
    tmp_path: Path, extra: str | None, question: str
) -> None:
    sample = read_one(tmp_path, {"instruction": "Add", "input": extra, "output": "2"})
    assert sample.messages[0]["content"] == question
    assert sample.id == "alpaca_0"


def test_a_word_inside_a_line_begins_no_turn(tmp_path: Path) -> None:
    item = {"instruction": "Human: Say Human: please", "input": "", "output": "No"}
    assert read_one(tmp_path, item).messages[0]["content"] == "Say Human: please"


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        (openai(("user", "a"), ("tool", "b")), r"turn 2, has the role 'tool'\. Known roles"),
        (openai(("user", "a"), ("user", "b")), "turn 2, is from 'user' where .* 'assistant'"),
        (openai(("user", None)), "turn 1, has null as 'content'"),
        (openai(("user", [{"type": "image_url"}])), "turn 1, has a part .* 'image_url'"),
        (openai(("user", ["text"])), "turn 1, has a part .* a string"),
        (openai(("user", [{"type": "text"}])), "turn 1, has null as 'text'"),
        ({"messages": 3}, "needs a list under 'messages'; it is a number"),
        ({"messages": [{"role": "user"}]}, "turn 1, is not an object with 'role' and 'content'"),
        ({"instruction": "a"}, r"\(id 'alpaca_0'\) has an 'instruction' and no 'output'"),
        ({"instruction": 1, "output": "b"}, "has a number as 'instruction'"),
        ({"instruction": "a", "output": None}, "has null as 'output'"),
        ({"instruction": "a", "output": "\ud83d"}, "half a character .* of 'output'"),
        ({"instruction": "a", "output": "b", "input": [1]}, "has a list as 'input'"),
        ({"instruction": "a", "output": "b", "history": {"a": 1}}, "an object as 'history'"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "pair 1 of 'history'"),
        ({"instruction": "a", "output": "b", "system": 1}, "has a number as 'system'"),
        (BELLE | {"instruction": "Human:a\nHuman:b"}, "turn 2, is from 'human'"),
        ({"prompt": "a"}, r"Its keys are: 'prompt'\. Known are 'conversations' \(ShareGPT\)"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, item: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as raised:
        read_one(tmp_path, item)
    assert "chat.json: sample 1 (id " in str(raised.value)


def test_what_is_no_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.parquet"
    with pytest.raises(DataError, match="There is no data file"):
        read_samples(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="is not a Parquet file that can be read"):
        read_samples(path)
    pq.write_table(pa.table({"conversations": []}), path)
    with pytest.raises(DataError, match="holds no samples"):
        read_samples(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [sharegpt()], "chat.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"pip install .*\[train\]"):
        read_samples(path)


TEXTS = st.text(st.characters(exclude_categories=[]), max_size=8)
ROLES = st.sampled_from(["human", "gpt", "user", "assistant", "system", "robot", None])
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS | st.integers() | st.none(),
        "system": st.none() | TEXTS,
        "conversations": st.none()
        | st.lists(st.fixed_dictionaries({"from": ROLES, "value": TEXTS | st.none()})),
        "messages": st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS})),
        "instruction": TEXTS | st.sampled_from(["Human:a", "Human:a\nAssistant:b\nHuman:c"]),
        "input": TEXTS | st.none(),
        "output": TEXTS | st.integers(),
        "history": st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=2),
    },
)


@st.composite
def well_formed(draw: Any) -> dict[str, Any]:
    key, role, text = draw(
        st.sampled_from([("conversations", "from", "value"), ("messages", "role", "content")])
    )
    rounds = draw(st.integers(1, 3))
    names = ["human", "gpt"] if key == "conversations" else ["user", "assistant"]
    names = draw(st.sampled_from([[], ["system"]])) + names * rounds
    return {key: [{role: name, text: draw(TEXTS)} for name in names]}


@given(item=ITEMS | well_formed())
def test_the_short_way_reads_nothing_that_the_long_way_does_not(item: dict[str, Any]) -> None:
    quick = plain_sample(item, 7)
    if quick is not None:
        assert quick == sample_of(item, place_of("f", 7, item))


@pytest.mark.parametrize("item", [sharegpt(), openai(*TALK), openai(("system", "x"), *TALK)])
def test_well_formed_items_go_the_short_way(item: dict[str, Any]) -> None:
    assert plain_sample(item, 1) is not None
