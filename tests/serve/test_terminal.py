"""The chat in the terminal: what is said, commands, styles, and stopping an answer."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys

import pytest

from fastchat.conversation import get_conv_template
from fastchat.engine.echo import EchoEngine, Script, echo_model
from fastchat.errors import ContextOverflowError, DataError
from fastchat.serve import cli, huggingface_api
from fastchat.serve.terminal.answering import Answered, Wishes, answer
from fastchat.serve.terminal.dialogue import Dialogue
from fastchat.serve.terminal.loop import COMMANDS, Chat
from fastchat.serve.terminal.styles import END_OF_MESSAGE, PlainStyle
from tests.serve.recorded import Recorded


def echoing(messages, write):
    text = f"{len(messages)}:{messages[-1]['content']}"
    write(text)
    return Answered(text, tokens=3)


def talk(*inputs, answering=echoing, system=None, **more):
    style = Recorded(*inputs)
    dialogue = Dialogue(get_conv_template("yuan2"), system)
    Chat(dialogue, style, answering, **more).run()
    return style, dialogue


def test_history_grows_until_it_is_reset():
    style, _ = talk("a", "b", "!!reset", "c")
    assert style.shown == ["1:a", "3:b", "1:c"]


def test_without_history_every_question_stands_alone():
    style, _ = talk("a", "b", keep_history=False)
    assert style.shown == ["1:a", "1:b"]


@pytest.mark.parametrize("ending", ["", "!!exit"])
def test_an_empty_line_or_exit_ends_the_chat(ending):
    style, _ = talk("a", ending, "never")
    assert style.inputs == ["never"]


def test_regen_asks_the_last_question_again():
    style, dialogue = talk("a", "b", "!!regen")
    assert style.shown == ["1:a", "3:b", "3:b"]
    assert len(dialogue.messages) == 4


def test_remove_takes_back_the_last_question_and_its_answer():
    style, dialogue = talk("a", "b", "!!remove")
    assert [message["content"] for message in dialogue.messages] == ["a", "1:a"]
    assert len(style.said) == 1


@pytest.mark.parametrize("command", ["!!remove", "!!regen"])
def test_there_may_be_nothing_to_take_back(command):
    style, _ = talk(command, "!!save")
    assert style.said == ["Nothing has been asked yet.", "!!save needs the name of a file."]


def test_a_saved_dialogue_is_fastchats_format_and_can_be_loaded(tmp_path):
    file = tmp_path / "talk"
    _, dialogue = talk("你好", f"!!save {file}", system="Be brief.")
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert saved == {
        "template_name": "yuan2",
        "system_message": "Be brief.",
        "roles": ["user", "assistant"],
        "messages": [["user", "你好"], ["assistant", "2:你好"]],
        "offset": 0,
    }
    style, loaded = talk("other", f"!!load {file}", "more")
    assert loaded.messages[:3] == dialogue.messages
    assert style.shown[-1] == "4:more"
    assert any("你好" in text for text in style.said)


@pytest.mark.parametrize("content", ["{", "[]", '{"messages": [["user"]]}', '{"messages": 1}'])
def test_a_file_that_holds_something_else_is_refused_and_changes_nothing(tmp_path, content):
    file = tmp_path / "bad.json"
    file.write_text(content, encoding="utf-8")
    style, dialogue = talk("a", f"!!load {file}", "!!load /no/where.json")
    assert [text.partition(":")[0] for text in style.said] == ["error", "error"]
    assert len(dialogue.messages) == 2
    with pytest.raises(DataError, match=r"bad\.json"):
        dialogue.load(str(file))


def failing(messages, write):
    raise ContextOverflowError("too long")


def test_a_question_that_cannot_be_answered_is_taken_back_and_the_chat_goes_on():
    style, dialogue = talk("a", "b", answering=failing)
    assert style.said == ["error: too long", "error: too long"]
    assert dialogue.messages == []
    with pytest.raises(ContextOverflowError):
        talk("a", answering=failing, forgiving=False)


def test_an_example_that_a_template_brings_is_not_part_of_the_dialogue():
    dialogue = Dialogue(get_conv_template("one_shot"))
    assert dialogue.take_back() is None
    dialogue.ask("a")
    assert [message["role"] for message in dialogue.messages] == ["system", "user"]
    assert dialogue.take_back() == "a"


def test_the_flags_win_over_the_models_defaults_and_these_over_ours():
    served = echo_model(defaults={"temperature": 0.1, "max_new_tokens": 9})
    messages = [{"role": "user", "content": "a"}]
    asyncio.run(answer(served, Wishes().params(messages, 512), str))
    asyncio.run(answer(served, Wishes(1.5, 1.2, 3).params(messages, 512), str))
    assert isinstance(served.engine, EchoEngine)
    own, told = (request.sampling for request in served.engine.requests)
    assert (own.temperature, own.max_new_tokens, own.repetition_penalty) == (0.1, 9, 1.0)
    assert (told.temperature, told.max_new_tokens, told.repetition_penalty) == (1.5, 3, 1.2)


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal, even where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_interrupting_an_answer_keeps_what_there_is():
    served = echo_model(Script(answer=lambda _: "x" * 900))
    told = []

    def write(text):
        told.append(text)
        if len(told) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with asyncio.Runner() as runner:
        params = Wishes().params([{"role": "user", "content": "a"}], 900)
        found = runner.run(answer(served, params, write))
    assert found.stopped
    assert found.text == "".join(told)
    assert 5 <= len(told) < 900
    assert served.engine.aborted == [""]


def chat(monkeypatch, text, *flags, script=None):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    served = echo_model(script)
    cli.chat(served, cli.parser().parse_args(["--model-path", "echo", *flags]))
    return served


def test_piped_questions_are_answered_plainly_one_a_line(monkeypatch, capsys):
    served = chat(monkeypatch, "你好\nabc\n", "--no-history")
    out, err = capsys.readouterr()
    assert (out, err) == ("你好\nabc\n", "")
    assert served.engine.closed


def test_a_question_keeps_its_blanks_and_answers_show_at_once(monkeypatch, capsys):
    told = []
    monkeypatch.setattr(PlainStyle, "write", lambda self, text: told.append(text))
    chat(monkeypatch, "你好吗\n")
    assert [text for text in told if text] == ["你", "好", "吗"]


@pytest.mark.parametrize("style", ["simple", "rich"])
def test_styles_are_plain_where_there_is_no_terminal(monkeypatch, capsys, style):
    chat(monkeypatch, "hi\n", "--style", style, "--debug")
    out, err = capsys.readouterr()
    assert out == "hi\n"
    assert "3 tokens" in err


def test_the_programmatic_style_marks_every_message(monkeypatch, capsys):
    text = f"first\nsecond line{END_OF_MESSAGE}!!exit{END_OF_MESSAGE}"
    chat(monkeypatch, text, "--style", "programmatic")
    out = capsys.readouterr().out
    assert out == "[!OP:user]: [!OP:assistant]: first\nsecond line\n[!OP:user]: "


def test_a_failing_model_ends_a_pipe_with_an_error(monkeypatch):
    with pytest.raises(RuntimeError, match="scripted"):
        chat(monkeypatch, "a\n", script=Script(fail_after=0))


def test_one_message_is_answered_and_that_is_all(monkeypatch, capsys):
    served = echo_model()
    monkeypatch.setattr(huggingface_api, "load_model", lambda args: served)
    huggingface_api.main(["--model", "echo", "--message", "你好"])
    assert capsys.readouterr().out == "user: 你好\nassistant: 你好\n"
    assert served.engine.closed


def test_several_lines_end_with_an_empty_one(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\n\nc\n"))
    style = PlainStyle(named=False, multiline=True)
    assert [style.ask("user"), style.ask("user"), style.ask("user")] == ["a\nb", "c", None]


def test_every_command_is_explained():
    assert set(COMMANDS) == {"!!exit", "!!reset", "!!remove", "!!regen", "!!save", "!!load"}
