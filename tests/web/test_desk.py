"""What happens behind the page: answers grow, stop, fail and are kept; limits; files; words."""

from __future__ import annotations

import asyncio
import string
import time
from contextlib import aclosing

import pytest

from fastchat.engine.echo import Script
from fastchat.errors import DataError, RequestError
from fastchat.serve.talking.answer import Sampling
from fastchat.serve.talking.backend import Backends
from fastchat.serve.talking.cluster import ClusterBackend
from fastchat.serve.web.desk import Desk, Session
from fastchat.serve.web.history import History
from fastchat.serve.web.limits import Limits
from fastchat.serve.web.log import ConversationLog
from fastchat.serve.web.questions import check_may_ask, checked
from fastchat.serve.web.rendering import figures, rendered
from fastchat.serve.web.text_files import read_text, with_files
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.words import _WORDS, language_of, say
from tests.serve.harness import until


@pytest.fixture
async def desk(stack):
    found = Desk(
        backend=Backends(ClusterBackend(stack.controller_server.url)),
        history=History(":memory:"),
        log=ConversationLog(None, "none", time.time),
        limits=Limits(),
        clock=time.monotonic,
        now=time.time,
    )
    yield found
    await found.backend.close()
    found.history.close()


def opened(desk, text="你好"):
    session = Session(desk.new_thread(model="echo"), visitor="tab", owner="me", person="p")
    desk.put_question(session, text, None)
    return session


async def whole(desk, session, **sampling):
    async with aclosing(desk.answer(session, Sampling(**sampling))) as growing:
        return [message.text async for message in growing]


def last(session):
    return session.thread.path[-1]


async def test_an_answer_grows_in_the_conversation_and_is_kept(desk):
    session = opened(desk)
    texts = await whole(desk, session)
    assert last(session).text == "你好"
    assert texts == sorted(texts, key=len)
    assert all("你好".startswith(text) for text in texts)
    assert figures(last(session), "en").endswith("complete")
    kept = desk.history.load("me", session.thread.id)
    assert [message.text for message in kept.path] == ["你好", "你好"]
    assert kept.path[-1].stats == last(session).stats
    assert not session.answering


async def test_what_was_not_complete_shows_no_figures(desk, stack):
    stack.engine.script = Script(answer=lambda _: "x" * 400)
    session = opened(desk)
    async with aclosing(desk.answer(session, Sampling())) as growing:
        async for message in growing:
            if message.text:
                assert figures(message, "en") == ""
                break
    assert figures(last(session), "en").endswith("stopped")


@pytest.mark.parametrize("how", ["stop", "leave", "close"])
async def test_a_stopped_answer_frees_the_engine_and_keeps_its_text(desk, stack, how):
    stack.engine.script = Script(answer=lambda _: "x" * 900)
    session = opened(desk)
    async with aclosing(desk.answer(session, Sampling())) as growing:
        async for message in growing:
            if message.text:
                if how == "stop":
                    desk.stop(session)
                elif how == "leave":
                    desk.leave("another tab")
                    desk.leave("tab")
                else:
                    break
    await asyncio.to_thread(until, lambda: stack.engine.aborted)
    kept = last(session)
    assert 0 < len(kept.text) < 900
    assert kept.stats["finish_reason"] == "stopped"
    assert desk.history.load("me", session.thread.id).path[-1].text == kept.text


async def test_a_failure_keeps_the_text_and_tells_cause_and_request(desk, stack):
    stack.engine.script = Script(fail_after=3)
    session = opened(desk, "abcdef")
    await whole(desk, session)
    told = figures(last(session), "en")
    assert last(session).text
    assert "scripted" in told or "broke off" in told
    assert last(session).stats["request_id"] in told
    assert "模型" in figures(last(session), "zh")
    assert not session.answering
    stack.engine.script = Script()
    session.thread.go_to(session.thread.path[0].id)
    await whole(desk, session)
    assert last(session).text == "abcdef"
    assert len(session.thread.versions(last(session).id)) == 2


async def test_nobody_there_is_told_as_such_and_the_question_stays(desk):
    await desk.backend.close()
    desk.backend = Backends(ClusterBackend("http://127.0.0.1:9"))
    session = opened(desk, "precious")
    await whole(desk, session)
    assert "cannot be reached" in figures(last(session), "en")
    kept = desk.history.load("me", session.thread.id)
    assert [message.text for message in kept.path] == ["precious", ""]
    assert kept.prompt() == []


async def test_tokens_are_counted_only_where_they_might_not_fit(desk, stack, monkeypatch):
    session = opened(desk, "hi")
    asked = []
    room = desk.backend.room

    async def counted(model, text):
        asked.append(text)
        return await room(model, text)

    monkeypatch.setattr(desk.backend, "room", counted)
    assert await desk.room("echo", "hi") is not None
    assert await desk.room("echo", "hi", 100) is None
    assert await desk.room("echo", "字" * 400) is not None
    assert asked == ["hi", "字" * 400]
    await whole(desk, session, max_new_tokens=100)
    assert len(asked) == 2


async def test_a_box_is_busy_until_the_last_of_its_panes_has_answered(desk, stack):
    stack.engine.script = Script(answer=lambda _: "x" * 900)
    a, b = opened(desk), opened(desk)
    a.box = b.box = "compare"
    async with (
        aclosing(desk.answer(a, Sampling())) as one,
        aclosing(desk.answer(b, Sampling())) as other,
    ):
        await anext(one)
        await anext(other)
        assert desk.is_writing("tab", "compare")
        assert not desk.is_writing("tab", "chat")
        assert not desk.is_writing("another tab", "compare")
        await one.aclose()
        assert desk.is_writing("tab", "compare")
    assert not desk.is_writing("tab", "compare")


async def test_an_answer_is_asked_for_as_long_as_fits(desk, stack):
    session = opened(desk, "x" * 900)
    await whole(desk, session, max_new_tokens=1000)
    (request,) = stack.engine.requests
    assert 0 < request.sampling.max_new_tokens <= 1024 - 900


async def test_messages_are_checked_before_a_model_is_asked(desk, tmp_path):
    session = Session(desk.new_thread(), person="p")
    more = {"most_characters": 10}
    assert (await checked(desk, session, "en", "echo", " hi\n", **more)).text == " hi"
    cut = await checked(desk, session, "en", "echo", "x" * 11, **more)
    assert (cut.text, cut.remark) == ("x" * 10, say("en", "cut", limit=10))
    file = tmp_path / "notes.md"
    file.write_text("# 标题\n", encoding="utf-8")
    with_file = await checked(desk, session, "en", "echo", "sum up", [str(file)], **more)
    assert with_file.text == "notes.md\n```\n# 标题\n```\n\nsum up"
    file.write_text("x" * 2000)
    for text, files, model, reason in (
        ("", [], "echo", "nothing_said"),
        ("a", [], None, "no_model"),
        ("a", [str(file)], "echo", None),
        ("a", [str(tmp_path / "x.exe")], "echo", None),
    ):
        with pytest.raises(RequestError) as caught:
            await checked(desk, session, "zh", model, text, files, **more)
        assert reason is None or str(caught.value) == say("zh", reason)


def test_limits_and_turns_are_told_of(desk_free):
    session = Session(Thread("t"), person="p")
    check_may_ask(desk_free, session, "en", "m")
    desk_free.limits.begin("p", 0.0)
    with pytest.raises(RequestError, match="1 answers"):
        check_may_ask(desk_free, session, "en", "m")
    desk_free.limits.end("p")
    with pytest.raises(RequestError, match="1 messages an hour"):
        check_may_ask(desk_free, session, "en", "m")
    session.person = "somebody else"
    session.answering = True
    with pytest.raises(RequestError, match="stop it first"):
        check_may_ask(desk_free, session, "en", "m")
    session.answering = False
    session.thread.add(Message("q", None, "user", "a"))
    session.thread.add(Message("a", "q", "assistant", "b"))
    with pytest.raises(RequestError, match="1 turns"):
        check_may_ask(desk_free, session, "en", "m")
    check_may_ask(desk_free, session, "en", "m", more_turns=0)


@pytest.fixture
def desk_free():
    history = History(":memory:")
    yield Desk(
        backend=Backends(),
        history=history,
        log=ConversationLog(None, "none", lambda: 0.0),
        limits=Limits(running=1, hourly=1),
        clock=lambda: 1.0,
        now=lambda: 1.0,
        turn_limit=1,
    )
    history.close()


def test_an_hour_later_a_limit_is_forgotten():
    limits = Limits(hourly=1)
    limits.begin("p", 0.0)
    limits.end("p")
    assert limits.reached("p", 3599.0) == "hourly"
    assert limits.reached("p", 3600.0) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_text_files_are_read_in_the_encodings_that_people_use(tmp_path, encoding):
    file = tmp_path / "a.TXT"
    file.write_bytes("你好，世界".encode(encoding))
    assert read_text(file) == "你好，世界"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.exe", b"x", "not one of"),
        ("a.txt", b" \n", "no text"),
        ("a.txt", b"\x00\x01\x02", "no text in UTF-8"),
        ("a.pdf", b"%PDF-nonsense", "no PDF"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path, name, data, reason):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(DataError, match=reason):
        read_text(file)


def test_a_pdfs_text_is_read(tmp_path):
    file = tmp_path / "a.pdf"
    file.write_bytes(_pdf("Hello from a PDF"))
    assert "Hello from a PDF" in read_text(file)


def _pdf(text):
    """The smallest PDF with a line of text."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R"
            b" /Resources << /Font << /F1 5 0 R >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    return (
        out
        + b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\n" % (table)
        + b"startxref\n%d\n%%%%EOF\n" % start
    )


def test_a_fence_in_a_file_does_not_end_the_file():
    assert with_files("", [("a.md", "```\nx\n```")]) == "a.md\n````\n```\nx\n```\n````"


def test_figures_are_no_part_of_the_text_and_cannot_smuggle_markup():
    thread = Thread("t", model="m")
    thread.add(Message("q", None, "user", "<b>"))
    thread.add(
        Message("a", "q", "assistant", "  x", stats={"error": "<script>", "request_id": "r"})
    )
    question, answer = rendered(thread, "zh")
    assert [part["type"] for part in question["content"]] == ["text"]
    text, note = answer["content"]
    assert text["text"] == "  x"
    assert "<script>" not in note["value"]
    assert "&lt;script&gt;" in note["value"]


def test_every_text_is_there_in_both_languages_with_the_same_fields():
    for key, (english, chinese) in _WORDS.items():
        fields = [
            {name for _, name, _, _ in string.Formatter().parse(text) if name}
            for text in (english, chinese)
        ]
        assert fields[0] == fields[1], key
        assert english.strip(), key
        assert chinese.strip(), key


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.1", "en"),
        ("fr,de;q=0.9", "en"),
        ("de,zh-TW;q=0.5", "zh"),
        ("", "en"),
        ("zh;q=oops", "zh"),
    ],
)
def test_the_browsers_language_is_understood(header, language):
    assert language_of(header) == language
