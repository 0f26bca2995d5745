"""Conversations: the tree, the file, and what is exported and read back."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.errors import DataError
from fastchat.serve.web import migrations
from fastchat.serve.web.history import History
from fastchat.serve.web.history_files import read, to_json, to_markdown
from fastchat.serve.web.thread import Message, Thread, title_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
LINES = st.lists(
    st.sampled_from(
        ["", "a", "你好", "<!-- user -->", "\\<!-- assistant: x -->", "# t", "**User**"]
    ),
    max_size=5,
).map("\n".join)
ONE_LINE = TEXT.map(lambda text: "x" + " ".join(text.split()))


@st.composite
def threads(draw):
    """A conversation that somebody wrote, answered anew, branched and went back in."""
    thread = Thread("t", title=draw(ONE_LINE), system=draw(LINES), model="m", created=1.0)
    for number in range(draw(st.integers(0, 12))):
        if len(thread) and draw(st.booleans()):
            thread.go_to(draw(st.sampled_from([None, *(m.id for m in thread.all_messages)])))
        role = "assistant" if len(thread.path) % 2 else "user"
        thread.add(Message(f"m{number}", thread.leaf, role, draw(LINES | TEXT), "m", {"n": number}))
    return thread


def told(thread):
    return [(message.role, message.text) for message in thread.path]


def shape(thread):
    """All that a conversation holds, with positions for ids."""
    place = {message.id: at for at, message in enumerate(thread.all_messages)} | {None: None}
    return (
        thread.title,
        thread.system,
        thread.model,
        place[thread.leaf],
        [
            (place[m.parent], m.role, m.text, m.model, m.stats, m.created)
            for m in thread.all_messages
        ],
    )


def ids():
    numbers = itertools.count()
    return lambda: f"new{next(numbers)}"


@given(threads())
def test_what_is_saved_is_loaded(thread):
    history = History(":memory:")
    history.save("me", thread, now=2.0)
    assert shape(history.load("me", "t")) == shape(thread)
    history.close()


@given(threads())
def test_json_holds_everything(thread):
    (found,) = read(to_json([thread]), new_id=ids(), now=3.0)
    assert shape(found) == shape(thread)
    assert found.id != thread.id


@given(threads())
def test_markdown_holds_what_is_shown(thread):
    if not thread.path and not thread.system:
        return
    (found,) = read(to_markdown(thread), new_id=ids(), now=3.0)
    assert (found.title, found.system, told(found)) == (thread.title, thread.system, told(thread))


@given(threads(), st.data())
def test_every_version_can_be_reached_and_nothing_is_lost(thread, data):
    if not len(thread):
        return
    before = len(thread)
    message = data.draw(st.sampled_from(thread.all_messages))
    thread.choose(message.id)
    assert message in thread.path
    versions = thread.versions(message.id)
    assert message in versions
    assert {version.parent for version in versions} == {message.parent}
    thread.step(message.id, len(versions))
    assert message in thread.path
    for version in versions:
        thread.step(versions[0].id, versions.index(version))
        assert version in thread.path
    assert len(thread) == before


@given(threads())
def test_the_path_leads_from_a_first_message_to_the_leaf(thread):
    path = thread.path
    assert [message.parent for message in path] == [None, *(message.id for message in path)][
        :-1
    ] or not path
    asked = [message for message in path if message.role == "user"]
    assert thread.take_back() == (asked[-1] if asked else None)
    assert thread.path == (path[: path.index(asked[-1])] if asked else path)


def talk(*texts, title=""):
    thread = Thread(f"t-{'-'.join(texts)}", title=title)
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        thread.add(Message(f"m{number}", thread.leaf, role, text))
    return thread


def test_a_prompt_leaves_out_what_failed():
    thread = talk("a", "", "b")
    thread.system = "Be brief."
    assert thread.prompt() == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "b"},
    ]


def test_only_changes_are_written():
    history = History(":memory:")
    thread = talk("a", "b")
    history.save("me", thread, now=1.0)
    thread["m0"].text = "not written"
    thread["m1"].text = "c"
    history.save("me", thread, now=2.0, changed=["m1"])
    assert told(history.load("me", thread.id)) == [("user", "a"), ("assistant", "c")]


def test_a_list_is_searched_renamed_and_deleted():
    history = History(":memory:")
    for now, thread in enumerate([talk("你好吗", "好"), talk("100% _sure_", "Yes"), talk("c")]):
        history.save("me", thread, now=now)
    titles = lambda search="": [each.title for each in history.list("me", search)]  # noqa: E731
    assert titles() == ["c", "100% _sure_", "你好吗"]
    assert titles("好") == ["你好吗"]
    assert titles("yes") == ["100% _sure_"]
    assert titles("%") == titles("_") == ["100% _sure_"]
    assert titles("\\") == []
    history.rename("me", "t-c", "Third")
    history.delete("me", "t-你好吗-好")
    assert titles() == ["Third", "100% _sure_"]
    with pytest.raises(DataError, match="no conversation"):
        history.load("me", "t-你好吗-好")


def test_conversations_are_their_owners_alone():
    history = History(":memory:")
    history.save("me", talk("a"), now=1.0)
    assert history.list("you") == []
    for action in (
        lambda: history.load("you", "t-a"),
        lambda: history.rename("you", "t-a", "x"),
        lambda: history.delete("you", "t-a"),
        lambda: history.save("you", talk("a"), now=2.0),
    ):
        with pytest.raises(DataError, match="no conversation"):
            action()
    assert [each.title for each in history.list("me")] == ["a"]


def test_a_file_is_kept_and_taken_on_by_newer_releases(tmp_path, monkeypatch):
    file = tmp_path / "new" / "history.sqlite"
    history = History(file)
    history.save("me", talk("a"), now=1.0)
    history.close()
    monkeypatch.setattr(
        migrations, "STEPS", (*migrations.STEPS, "ALTER TABLE conversations ADD COLUMN extra TEXT;")
    )
    newer = History(file)
    assert told(newer.load("me", "t-a")) == [("user", "a")]
    newer.close()
    monkeypatch.undo()
    with pytest.raises(DataError, match="version 3"):
        History(file)


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "history.sqlite"
    History(file).close()
    broken = (*migrations.STEPS, "CREATE TABLE half (x); CREATE TABLE messages (y);")
    monkeypatch.setattr(migrations, "STEPS", broken)
    with pytest.raises(DataError, match="already exists"):
        History(file)
    with sqlite3.connect(file) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master")]
    db.close()
    assert "half" not in tables


def test_what_is_no_database_is_refused(tmp_path):
    file = tmp_path / "history.sqlite"
    file.write_text("x" * 5000)
    with pytest.raises(DataError, match="not a database"):
        History(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no valid JSON"),
        ("[]", "format"),
        ('{"format": "fastchat-conversations", "version": 2}', "version 2"),
        ('{"format": "fastchat-conversations", "version": 1}', "incomplete"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "role is 'tool'"),
        ('{"messages": [1]}', "needs a role"),
        ("# Just a text\n", "no conversation"),
    ],
)
def test_a_file_with_something_else_is_refused_with_a_reason(text, reason):
    with pytest.raises(DataError, match=reason):
        read(text, new_id=ids(), now=0.0)


def test_a_broken_tree_is_refused():
    document = json.loads(to_json([talk("a", "b")]))
    document["conversations"][0]["messages"][1]["parent"] = "m9"
    with pytest.raises(DataError, match="m9"):
        read(json.dumps(document), new_id=ids(), now=0.0)


def test_openais_messages_can_be_read():
    text = json.dumps(
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
            ]
        }
    )
    (found,) = read(text, new_id=ids(), now=0.0)
    assert (found.system, told(found)) == ("s", [("user", "a"), ("assistant", "b")])


@settings(max_examples=30)
@given(TEXT)
def test_a_title_is_one_short_line(text):
    title = title_of(text)
    assert len(title) <= 40
    assert len(title.splitlines()) <= 1


def test_threads_share_a_history(tmp_path):
    history = History(tmp_path / "history.sqlite")
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        for count in range(10):
            thread = talk("a", "b")
            thread.id = f"{number}-{count}"
            history.save(f"owner{number}", thread, now=1.0)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [len(history.list(f"owner{number}")) for number in range(8)] == [10] * 8
    history.close()
