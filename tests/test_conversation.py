"""Templates: nothing typed is lost, spans tell whose text is whose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.chat import fill
from fastchat.conversation import (
    Conversation,
    SeparatorStyle,
    conv_templates,
    get_conv_template,
    register_conv_template,
)
from fastchat.errors import RequestError, SettingsError
from fastchat.prompt_styles import render_yuan2

turns = st.lists(st.text(), min_size=1, max_size=5)


def conversation_of(template: str, texts: list[str], system: str = "") -> Conversation:
    conversation = get_conv_template(template)
    conversation.set_system_message(system)
    for index, text in enumerate(texts):
        conversation.append_message(conversation.roles[index % 2], text)
    conversation.append_message(conversation.roles[1], None)
    return conversation


def test_golden_chats(golden_dir: Path) -> None:
    for case in json.loads((golden_dir / "chat_template.json").read_text())["cases"]:
        pieces = render_yuan2(case["messages"])
        assert "".join(piece.text for piece in pieces) == case["rendered"]
        filled = fill(get_conv_template("yuan2"), case["messages"])
        assert filled.get_prompt() == case["rendered"]


@given(texts=turns, system=st.text())
def test_yuan2_loses_only_outer_whitespace(texts: list[str], system: str) -> None:
    conversation = conversation_of("yuan2", texts, system)
    head = f"{system.strip()}\n" if system else ""
    expected = head + "<n>".join(text.strip() for text in texts) + "<sep>"
    assert conversation.get_prompt() == expected


@pytest.mark.parametrize("name", sorted(conv_templates))
@given(texts=turns, system=st.text())
def test_spans_are_the_messages(name: str, texts: list[str], system: str) -> None:
    conversation = conversation_of(name, texts, system)
    prompt = conversation.get_prompt()
    kept = {span.message: prompt[span.start : span.end] for span in conversation.spans()}
    strip = str.strip if name == "yuan2" else str
    for index, (_, text) in enumerate(conversation.messages):
        assert kept.get(index, "") == strip(text or "")


def test_only_the_last_separator_is_a_control_token() -> None:
    pieces = conversation_of("yuan2", ["a<sep>", "b<n>", "c"], "s").pieces()
    assert [piece.text for piece in pieces if piece.control] == ["<sep>"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yuan2", "S\nhi<n>yo<n>bye<sep>"),
        ("yuan", "Shi<sep>yo<sep>bye<sep>"),
        ("raw", "Shiyobye"),
        ("zero_shot", "S\n### Human: hi\n### Assistant: yo\n### Human: bye\n### Assistant:"),
        ("chatgpt", "S\nuser: hi\nassistant: yo\nuser: bye\nassistant:"),
        ("vicuna_v1.1", "S USER: hi ASSISTANT: yo</s>USER: bye ASSISTANT:"),
        (
            "alpaca",
            "S\n\n### Instruction: hi\n\n### Response: yo</s>### Instruction: bye\n\n### Response:",
        ),
    ],
)
def test_prompts(name: str, expected: str) -> None:
    assert conversation_of(name, ["hi", "yo", "bye"], "S").get_prompt() == expected


def test_chatml() -> None:
    template = Conversation(
        name="c",
        system_template="<|im_start|>system\n{system_message}",
        system_message="S",
        roles=("<|im_start|>user", "<|im_start|>assistant"),
        sep_style=SeparatorStyle.CHATML,
        sep="<|im_end|>",
    )
    prompt = fill(template, [{"role": "user", "content": "hi"}]).get_prompt()
    assert prompt == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_saved_form_and_openai_form() -> None:
    conversation = conversation_of("yuan2", ["hi", "yo"], "S")
    assert conversation.dict() == {
        "template_name": "yuan2",
        "system_message": "S",
        "roles": ("user", "assistant"),
        "messages": [("user", "hi"), ("assistant", "yo"), ("assistant", None)],
        "offset": 0,
    }
    assert conversation.to_openai_api_messages() == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
    ]
    assert conversation.to_gradio_chatbot() == [["hi", "yo"], [None, None]]


def test_copies_are_independent() -> None:
    first = get_conv_template("yuan2")
    first.append_message("user", "x")
    assert get_conv_template("yuan2").messages == []


def test_registry_errors() -> None:
    with pytest.raises(SettingsError, match="registered already"):
        register_conv_template(get_conv_template("yuan2"))
    with pytest.raises(SettingsError, match=r"no conversation template named 'no'.*yuan2"):
        get_conv_template("no")
    other = Conversation(name="x", sep_style=SeparatorStyle.LLAMA2)
    with pytest.raises(SettingsError, match="LLAMA2"):
        other.get_prompt()


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([], "empty"),
        ([{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}], r"messages\[1\]"),
    ],
)
def test_bad_messages_are_named(messages: list[dict[str, str]], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        render_yuan2(messages)
    with pytest.raises(RequestError, match=named):
        fill(get_conv_template("zero_shot"), messages)
