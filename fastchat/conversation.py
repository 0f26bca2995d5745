"""Conversations and prompt templates, by the names FastChat users import.

Renders text only; knows nothing of tokenizers, models or servers.

    python -c "from fastchat.conversation import get_conv_template as t; print(t('yuan2'))"
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from fastchat.errors import SettingsError
from fastchat.prompt_styles import (
    Layout,
    Piece,
    SeparatorStyle,
    Span,
    render,
    render_yuan2,
)

__all__ = [
    "Conversation",
    "Piece",
    "SeparatorStyle",
    "Span",
    "conv_templates",
    "get_conv_template",
    "register_conv_template",
    "render_yuan2",
]


@dataclass
class Conversation:
    """A prompt template together with the messages of one conversation.

    `messages` holds `[role, text]` pairs with the template's own role names; a text of
    None marks the turn that the model is to write.
    """

    name: str
    system_template: str = "{system_message}"
    system_message: str = ""
    system_message_vision: str = ""
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    messages: list[list[str | None]] = field(default_factory=list)
    offset: int = 0
    sep_style: SeparatorStyle = SeparatorStyle.ADD_COLON_SINGLE
    sep: str = "\n"
    sep2: str | None = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_image_size_mb: int | None = None

    def pieces(self) -> list[Piece]:
        """The prompt in pieces; their texts joined are `get_prompt()`.

        Raises:
            SettingsError: the template's separator style belongs to a model that this
                project does not serve.
        """
        layout = Layout(
            system=self.system_template.format(system_message=self.system_message),
            turns=[(role or "", text) for role, text in self.messages],
            sep=self.sep,
            sep2=self.sep2,
        )
        return render(SeparatorStyle(self.sep_style), layout)

    def get_prompt(self) -> str:
        """The text to generate from."""
        return "".join(piece.text for piece in self.pieces())

    def spans(self) -> list[Span]:
        """Which characters of `get_prompt()` belong to which message, in order."""
        found, start = [], 0
        for piece in self.pieces():
            end = start + len(piece.text)
            if piece.owner is not None:
                role = self.messages[piece.owner][0] or ""
                found.append(Span(start, end, role, piece.owner))
            start = end
        return found

    def set_system_message(self, system_message: str) -> None:
        """Sets the system text; an empty one means none."""
        self.system_message = system_message

    def get_system_message(self, is_vision: bool = False) -> str:
        """The system text (the models served here read no images)."""
        return self.system_message_vision if is_vision else self.system_message

    def append_message(self, role: str, message: str | None) -> None:
        """Adds a turn; a message of None is the turn to be generated."""
        self.messages.append([role, message])

    def update_last_message(self, message: str | None) -> None:
        """Replaces the text of the last turn."""
        self.messages[-1][1] = message

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """The turns as [question, answer] pairs."""
        pairs: list[list[str | None]] = []
        for index, (_, text) in enumerate(self.messages[self.offset :]):
            if index % 2 == 0:
                pairs.append([text, None])
            else:
                pairs[-1][-1] = text
        return pairs

    def to_openai_api_messages(self) -> list[dict[str, str]]:
        """The conversation as OpenAI messages; an open turn is left out."""
        messages = []
        if self.system_message:
            messages.append({"role": "system", "content": self.system_message})
        for index, (_, text) in enumerate(self.messages[self.offset :]):
            if text is not None:
                messages.append({"role": ("user", "assistant")[index % 2], "content": text})
        return messages

    def extract_text_from_messages(self) -> list[tuple[str | None, str | None]]:
        """The turns as (role, text) pairs."""
        return [(role, text) for role, text in self.messages]

    def get_images(self) -> list[Any]:
        """Always empty: the models served here read no images."""
        return []

    def copy(self) -> Conversation:
        """An independent copy."""
        return copy.deepcopy(self)

    def dict(self) -> dict[str, Any]:
        """The form in which conversations are saved and logged."""
        return {
            "template_name": self.name,
            "system_message": self.system_message,
            "roles": self.roles,
            "messages": self.extract_text_from_messages(),
            "offset": self.offset,
        }


conv_templates: dict[str, Conversation] = {}


def register_conv_template(template: Conversation, override: bool = False) -> None:
    """Makes a template available by its name.

    Raises:
        SettingsError: the name is taken and `override` is false.
    """
    if not override and template.name in conv_templates:
        raise SettingsError(
            f"A conversation template named {template.name!r} is registered already.",
            hint="Choose another name or pass override=True.",
        )
    conv_templates[template.name] = template


def get_conv_template(name: str) -> Conversation:
    """A fresh copy of a registered template.

    Raises:
        SettingsError: no template has this name.
    """
    try:
        return conv_templates[name].copy()
    except KeyError:
        raise SettingsError(
            f"There is no conversation template named {name!r}.",
            hint=f"Known templates: {', '.join(sorted(conv_templates))}.",
        ) from None


_ASSISTANT_SYSTEM = (
    "A chat between a curious {user} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {owner} questions."
)
_HUMAN_SYSTEM = _ASSISTANT_SYSTEM.format(user="human", owner="human's")

for _template in (
    Conversation(
        name="yuan2",
        roles=("user", "assistant"),
        sep_style=SeparatorStyle.YUAN2,
        sep="<sep>",
        sep2="\n",
        stop_str="<eod>",
        stop_token_ids=[77185],
    ),
    Conversation(
        name="yuan",
        roles=("", ""),
        sep_style=SeparatorStyle.NO_COLON_SINGLE,
        sep="<sep>",
        stop_str="<eod>",
    ),
    Conversation(name="raw", roles=("", ""), sep_style=SeparatorStyle.NO_COLON_SINGLE, sep=""),
    Conversation(
        name="one_shot",
        system_message=_HUMAN_SYSTEM,
        roles=("Human", "Assistant"),
        messages=[
            ["Human", "Why is the sky blue?"],
            [
                "Assistant",
                (
                    "Air scatters short wavelengths of sunlight more than long ones, so blue"
                    " light reaches our eyes from every direction of the sky."
                ),
            ],
        ],
        offset=2,
        sep_style=SeparatorStyle.ADD_COLON_SINGLE,
        sep="\n### ",
        stop_str="###",
    ),
    Conversation(
        name="zero_shot",
        system_message=_HUMAN_SYSTEM,
        roles=("Human", "Assistant"),
        sep_style=SeparatorStyle.ADD_COLON_SINGLE,
        sep="\n### ",
        stop_str="###",
    ),
    Conversation(
        name="api_based_default",
        roles=("user", "assistant"),
        sep_style=SeparatorStyle.DEFAULT,
        sep="\n",
    ),
    Conversation(
        name="chatgpt",
        system_message="You are a helpful assistant.",
        roles=("user", "assistant"),
        sep_style=SeparatorStyle.DEFAULT,
        sep="\n",
    ),
    Conversation(
        name="vicuna_v1.1",
        system_message=_ASSISTANT_SYSTEM.format(user="user", owner="user's"),
        roles=("USER", "ASSISTANT"),
        sep_style=SeparatorStyle.ADD_COLON_TWO,
        sep=" ",
        sep2="</s>",
    ),
    Conversation(
        name="alpaca",
        system_message="Below is an instruction that describes a task."
        " Write a response that appropriately completes the request.",
        roles=("### Instruction", "### Response"),
        sep_style=SeparatorStyle.ADD_COLON_TWO,
        sep="\n\n",
        sep2="</s>",
    ),
):
    register_conv_template(_template)
