"""How each separator style lays messages out as a prompt.

Pure functions from texts to pieces; knows nothing of tokenizers, of templates' names or
of who registers them. A piece says whom its text belongs to and whether it is a control
token, so that tokenizers can keep typed text apart from control tokens and trainers can
find the answers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastchat.errors import RequestError, SettingsError


class SeparatorStyle(enum.IntEnum):
    """How a template joins its messages. The numbers travel over the wire."""

    ADD_COLON_SINGLE = 1
    ADD_COLON_TWO = 2
    ADD_COLON_SPACE_SINGLE = 3
    NO_COLON_SINGLE = 4
    NO_COLON_TWO = 5
    ADD_NEW_LINE_SINGLE = 6
    LLAMA2 = 7
    LLAMA3 = 8
    CHATGLM = 9
    CHATML = 10
    CHATINTERN = 11
    DOLLY = 12
    RWKV = 13
    PHOENIX = 14
    ROBIN = 15
    FALCON_CHAT = 16
    CHATGLM3 = 17
    DEEPSEEK_CHAT = 18
    METAMATH = 19
    YUAN2 = 20
    GEMMA = 21
    CLLM = 22
    DEFAULT = 23


class Piece(NamedTuple):
    """A stretch of a prompt.

    Attributes:
        text: the characters.
        owner: index of the message it belongs to; None for the template's own text.
        control: whether the text is a control token of the template, as opposed to text
            that somebody typed and that must never act as one.
    """

    text: str
    owner: int | None = None
    control: bool = False


class Span(NamedTuple):
    """Characters [start, end) of a prompt that belong to one message."""

    start: int
    end: int
    role: str
    message: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a style lays out: the system text, the turns and the two separators.

    A turn whose text is None is the one that the model is to write.
    """

    system: str
    turns: Sequence[tuple[str, str | None]]
    sep: str = "\n"
    sep2: str | None = None

    def separator(self, turn: int) -> str:
        """`sep` and `sep2` in turn, for the styles that have two."""
        return self.sep if turn % 2 == 0 or self.sep2 is None else self.sep2


YUAN2_TURN = "<n>"
"""What the Yuan2 template puts between turns. Plain text to the tokenizer, by design."""

YUAN2_ANSWER = "<sep>"
"""The control token after which Yuan2 writes its answer."""


_NEXT_TURN = Piece(YUAN2_TURN)
_NEW_LINE = Piece("\n")
_ANSWER = Piece(YUAN2_ANSWER, control=True)


def render_yuan2(messages: Sequence[Mapping[str, str]]) -> list[Piece]:
    """Renders OpenAI messages as Yuan2's published chat template does.

    Each message is stripped of its outer whitespace. A system message is followed by a
    newline, other messages by `<n>`, the last of them by `<sep>`; there are no role names.

    Args:
        messages: `{"role": "system" | "user" | "assistant", "content": str}` mappings.

    Raises:
        RequestError: no messages, or an unknown role.
    """
    if not messages:
        raise RequestError(
            "The message list is empty; at least one message is needed.", param="messages"
        )
    pieces: list[Piece] = []
    turn = None  # where the separator behind the latest turn stands
    for index, message in enumerate(messages):
        role, text = message["role"], message["content"].strip()
        if text:
            pieces.append(Piece(text, index))
        if role == "system":
            pieces.append(_NEW_LINE)
        elif role in ("user", "assistant"):
            turn = len(pieces)
            pieces.append(_NEXT_TURN)
        else:
            raise RequestError(
                f"messages[{index}].role is {role!r};"
                " allowed are 'system', 'user' and 'assistant'.",
                param=f"messages[{index}].role",
            )
    if turn is not None:
        pieces[turn] = _ANSWER
    return pieces


def render(style: SeparatorStyle, layout: Layout) -> list[Piece]:
    """Lays out a prompt; owners of pieces are indices into `layout.turns`.

    Raises:
        SettingsError: the style belongs to a model that this project does not serve.
    """
    try:
        lay_out = _STYLES[style]
    except KeyError:
        raise SettingsError(
            f"Separator style {style.name} is not rendered here.",
            hint=f"Rendered styles: {', '.join(known.name for known in _STYLES)}.",
        ) from None
    return [piece for piece in lay_out(layout) if piece.text]


def _yuan2(layout: Layout) -> list[Piece]:
    system = [{"role": "system", "content": layout.system}] if layout.system else []
    written = [index for index, (_, text) in enumerate(layout.turns) if text is not None]
    messages = [
        # A name of either role renders alike: Yuan2 prompts carry no role names.
        {"role": "user", "content": layout.turns[index][1] or ""}
        for index in written
    ]
    if not system and not messages:
        return []
    owners: list[int | None] = [None] * len(system) + list(written)
    return [
        Piece(piece.text, None if piece.owner is None else owners[piece.owner], piece.control)
        for piece in render_yuan2(system + messages)
    ]


def _with_roles(
    after_system: Callable[[Layout], str],
    before: str,
    open_turn: str,
    after: Callable[[Layout, int], str],
) -> Callable[[Layout], list[Piece]]:
    """A style that names the roles, from its four joints.

    `before` and `open_turn` are formats of the role's name: what stands before a message,
    and what starts the turn that the model is to write.
    """

    def lay_out(layout: Layout) -> list[Piece]:
        pieces = [Piece(layout.system + after_system(layout))]
        for index, (role, text) in enumerate(layout.turns):
            if not text:
                pieces.append(Piece(open_turn.format(role)))
            else:
                pieces += [
                    Piece(before.format(role)),
                    Piece(text, owner=index),
                    Piece(after(layout, index), control=True),
                ]
        return pieces

    return lay_out


def _if_system(ending: str) -> Callable[[Layout], str]:
    return lambda layout: ending.format(sep=layout.sep) if layout.system else ""


def _sep(layout: Layout, _: int = 0) -> str:
    return layout.sep


_STYLES: Mapping[SeparatorStyle, Callable[[Layout], list[Piece]]] = {
    SeparatorStyle.YUAN2: _yuan2,
    SeparatorStyle.ADD_COLON_SINGLE: _with_roles(_sep, "{}: ", "{}:", _sep),
    SeparatorStyle.ADD_COLON_TWO: _with_roles(_sep, "{}: ", "{}:", Layout.separator),
    SeparatorStyle.ADD_COLON_SPACE_SINGLE: _with_roles(_sep, "{}: ", "{}: ", _sep),
    SeparatorStyle.NO_COLON_SINGLE: _with_roles(lambda _: "", "{}", "{}", _sep),
    SeparatorStyle.NO_COLON_TWO: _with_roles(lambda _: "", "{}", "{}", Layout.separator),
    SeparatorStyle.ADD_NEW_LINE_SINGLE: _with_roles(_if_system("{sep}"), "{}\n", "{}\n", _sep),
    SeparatorStyle.CHATML: _with_roles(
        _if_system("{sep}\n"), "{}\n", "{}\n", lambda layout, _: layout.sep + "\n"
    ),
    SeparatorStyle.DEFAULT: _with_roles(_if_system("\n"), "{}: ", "{}:", lambda *_: "\n"),
}
