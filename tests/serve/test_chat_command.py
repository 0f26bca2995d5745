"""`fastchat chat` and what the terminal shares with it; driven in a real terminal where one is."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fastchat.conversation import get_conv_template
from fastchat.engine.echo import Script
from fastchat.errors import ContextOverflowError, SettingsError
from fastchat.serve import chat, doctor
from fastchat.serve.terminal.answering import Answered
from fastchat.serve.terminal.commands import ACTIONS, ALL_COMMANDS, COMMANDS
from fastchat.serve.terminal.dialogue import Dialogue
from fastchat.serve.terminal.loop import Chat
from fastchat.serve.terminal.markdown import GrowingMarkdown, settled
from fastchat.serve.terminal.sampling import Dials
from tests.serve.harness import PATIENCE_S, until
from tests.serve.recorded import Recorded

PARTS = st.lists(
    st.sampled_from(
        ["a", "你好", "\n", "\n\n", "```\n", "~~~py\n", "- x\n", "    code\n", "| t |"]
    ),
    max_size=25,
)


@given(PARTS)
def test_settled_blocks_never_change_and_never_cut_a_fence(parts):
    text, printed = "", ""
    for part in parts:
        text += part
        rest = text[len(printed) :]
        end = settled(rest)
        block = rest[:end]
        assert block == "" or block.endswith("\n")
        assert sum(line.startswith("```") for line in block.splitlines()) % 2 == 0 or "~~~" in block
        printed += block
    assert text.startswith(printed)


def test_an_answer_longer_than_the_screen_is_all_there_once():
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=8)
    growing = GrowingMarkdown(console)
    for number in range(40):
        growing.write(f"第{number}段 **好**\n\n")
    growing.end()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    last_printed = shown[shown.rindex("第0段") :] if shown.count("第0段") == 1 else shown
    assert all(f"第{number}段" in last_printed for number in range(40))
    assert "**" not in shown


def talk(*inputs, answering=None, **more):
    def echoing(messages, write):
        write(messages[-1]["content"])
        return Answered(messages[-1]["content"])

    style = Recorded(*inputs)
    dialogue = Dialogue(get_conv_template("yuan2"))
    dials = Dials()
    Chat(dialogue, style, answering or echoing, commands=ALL_COMMANDS, dials=dials, **more).run()
    return style, dialogue, dials


def test_slash_commands_do_what_they_say(tmp_path):
    style, dialogue, dials = talk(
        "a",
        "/system Be brief.",
        "/set top-p 0.5",
        "b",
        "/undo",
        "/retry",
        f"/save {tmp_path / 'x'}",
        "/new",
        f"/load {tmp_path / 'x'}",
        "/help",
        "/home is a path",
        "/exit",
        "never",
    )
    assert style.inputs == ["never"]
    assert style.shown == ["a", "b", "a", "/home is a path"]
    assert dials.top_p == 0.5
    assert dialogue.messages[0] == {"role": "system", "content": "Be brief."}
    assert any(all(name in said for name in ALL_COMMANDS) for said in style.said)


def test_a_question_that_failed_can_be_asked_again():
    calls = []

    def failing_once(messages, write):
        calls.append(messages[-1]["content"])
        if len(calls) == 1:
            raise ContextOverflowError("too long")
        return Answered("fine")

    style, dialogue, _ = talk("precious", "/retry", answering=failing_once)
    assert calls == ["precious", "precious"]
    assert [message["content"] for message in dialogue.messages] == ["precious", "fine"]
    assert style.said == ["error: too long"]


def test_without_them_a_slash_is_a_question():
    style = Recorded("/help", None)
    dialogue = Dialogue(get_conv_template("yuan2"))
    Chat(dialogue, style, lambda messages, _: Answered("x"), commands=COMMANDS).run()
    assert dialogue.messages[0]["content"] == "/help"


def test_every_command_has_an_action():
    assert set(ACTIONS) == set(ALL_COMMANDS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("temperature 3", r"'3'; allowed is 0 to 2"),
        ("max_new_tokens 1.5", r"allowed is 1\."),
        ("speed 1", "no setting 'speed'"),
        ("top_p", "top_p is ''"),
    ],
)
def test_a_setting_out_of_range_is_refused_and_changes_nothing(text, reason):
    dials = Dials(temperature=0.3)
    with pytest.raises(SettingsError, match=reason):
        dials.set(text)
    assert dials == Dials(temperature=0.3)
    dials.set("temperature default")
    assert dials == Dials()


class Pipe(io.StringIO):
    def __init__(self, text, *, tty=False):
        super().__init__(text)
        self._tty = tty

    def isatty(self):
        return self._tty


def test_a_pipe_is_added_to_the_question():
    assert chat.piped("sum up", Pipe("text\n")) == "sum up\n\ntext"
    assert chat.piped("", Pipe("text\n")) == "text"
    assert chat.piped("ask", Pipe("")) == "ask"
    assert chat.piped("ask", Pipe("", tty=True)) == "ask"
    assert chat.piped("", Pipe("", tty=True)) is None
    with pytest.raises(SettingsError, match="no question"):
        chat.piped("", Pipe("\n"))


def test_one_question_gets_one_plain_answer(stack, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Pipe("你好"))
    chat.main(["--url", stack.api_server.url + "/v1", "--temperature", "0.3"])
    assert capsys.readouterr().out == "你好\n"
    (request,) = stack.engine.requests
    assert request.sampling.temperature == 0.3


def test_json_tells_the_figures_too(stack, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Pipe(""))
    chat.main(["--url", stack.api_server.url + "/v1", "--json", "--system", "s", "你好"])
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "echo"
    assert told["text"].endswith("你好")
    assert told["finish_reason"] == "stop"
    assert told["request_id"].startswith("req-")


def test_nobody_at_the_url_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Pipe("x"))
    with pytest.raises(Exception, match=r"cannot be reached.*--local MODEL"):
        chat.main(["--url", "http://127.0.0.1:9/v1"])


class Metronome:
    """A gate that opens a hundred times a second."""

    async def wait(self):
        await asyncio.sleep(0.01)


class Terminal:
    """A program in a terminal of its own, 80 by 24."""

    def __init__(self, *command, home):
        self.screen, theirs = pty.openpty()
        self.resize(80, 24)
        variables = {"TERM": "xterm-256color", "HOME": str(home), "XDG_STATE_HOME": str(home)}
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **variables, "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
        )
        os.close(theirs)
        self._data = b""
        self._place = 0

    def resize(self, columns, rows):
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.screen, text.encode())

    def until(self, wanted):
        """Reads on until the text has appeared behind what was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._data.decode(errors="ignore"))
            found = plain.find(wanted, self._place)
            if found >= 0:
                self._place = found + len(wanted)
                return
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} never appeared in {plain[self._place :]!r}"
            if select.select([self.screen], [], [], left)[0]:
                self._data += os.read(self.screen, 4096)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.mark.slow
def test_a_chat_in_a_terminal(stack, tmp_path):
    endless = Script(answer=lambda prompt: "**重**" * 300 if "长" in prompt else "**好的** 朋友")
    stack.engine.script = endless
    terminal = Terminal(
        *(sys.executable, "-m", "fastchat", "chat"),
        *("--url", stack.api_server.url + "/v1"),
        home=tmp_path,
    )
    try:
        terminal.until("/help shows the commands")
        terminal.until("user:")
        terminal.type("你好\r")
        terminal.until("好的 朋友")
        terminal.until("tokens")
        terminal.resize(50, 15)
        terminal.type("/set temperature 0.4\r")
        terminal.until("temperature: 0.4")
        terminal.until("user:")
        stack.engine.script.gate = Metronome()
        terminal.type("写长一点\r")
        terminal.until("重重重重")
        os.killpg(os.getpgid(terminal.process.pid), signal.SIGINT)
        terminal.until("stopped")
        terminal.until("user:")
        saved = tmp_path / "talk"
        terminal.type(f"/save {saved}\r")
        terminal.until("Saved")
        terminal.type("/exit\r")
        assert terminal.process.wait(PATIENCE_S) == 0
    finally:
        terminal.close()
    until(lambda: stack.engine.aborted)
    texts = [text for _, text in json.loads((tmp_path / "talk.json").read_text())["messages"]]
    assert texts[:3] == ["你好", "**好的** 朋友", "写长一点"]
    assert 0 < len(texts[3]) < len("**重**") * 300
    assert "写长一点" in (tmp_path / "fastchat" / "chat-history").read_text()


def test_the_doctor_finds_this_machine_fit_and_says_how_to_mend_another(capsys, monkeypatch):
    doctor.main([])
    told = capsys.readouterr().out
    assert "ok  torch" in told
    broken = [doctor.Finding("torch", "bad", "not installed", "pip install torch")]
    monkeypatch.setattr(doctor, "examine", lambda: broken)
    with pytest.raises(SystemExit, match="1"):
        doctor.main(["--json"])
    assert json.loads(capsys.readouterr().out)["fix"] == "pip install torch"
