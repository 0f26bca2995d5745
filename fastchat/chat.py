"""From messages to token ids: the one renderer that serving and training share.

Text that somebody typed is encoded as plain text, so that a `<sep>` or `<eod>` inside a
message never acts as a control token; only the template's own control tokens do.
Knows nothing of HTTP, of files or of labels. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastchat.conversation import Conversation
from fastchat.errors import RequestError
from fastchat.prompt_styles import YUAN2_ANSWER, Piece, Span, render_yuan2

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt that is ready to be fed to the model.

    Attributes:
        ids: token ids.
        text: the same as text.
        spans: which characters of the text belong to which message; empty where the
            template cannot tell.
    """

    ids: list[int]
    text: str
    spans: list[Span]


class ChatRenderer(Protocol):
    """Turns the messages of a conversation into what a model reads and learns."""

    def render(self, messages: Messages) -> RenderedPrompt:
        """The prompt from which the model writes the next answer.

        Args:
            messages: `{"role": ..., "content": str}` mappings, oldest first.

        Raises:
            RequestError: no messages, or messages that the template refuses.
        """
        ...

    def answer_ids(self, answer: str) -> list[int]:
        """The ids that the model is to write for an answer, its end token included."""
        ...

    def all_prompt_ids(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """`render(...).ids` of each; cheaper where a tokenizer takes many texts at once."""
        return [self.render(messages).ids for messages in prompts]

    def all_answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """`answer_ids` of each, likewise."""
        return [self.answer_ids(answer) for answer in answers]


class YuanChatRenderer(ChatRenderer):
    """Yuan2's published chat format.

    Args:
        tokenizer: a Yuan2 tokenizer.
        parse_special: read special tokens typed inside a message as such, which lets
            whoever types end the prompt. Off unless raw behaviour is wanted.
    """

    def __init__(self, tokenizer: Any, *, parse_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._parse_special = parse_special
        # Looked up once: transformers takes as long for a special token as for a short text.
        self._end = tokenizer.eos_token_id
        self._answer = tokenizer.convert_tokens_to_ids(YUAN2_ANSWER)

    def render(self, messages: Messages) -> RenderedPrompt:
        """See `ChatRenderer.render`. A prompt always ends in `<sep>`.

        Raises:
            RequestError: no messages, an unknown role, or no user or assistant message.
        """
        pieces = render_yuan2(messages)
        spans, start = [], 0
        for piece in pieces:
            end = start + len(piece.text)
            if piece.owner is not None:
                spans.append(Span(start, end, messages[piece.owner]["role"], piece.owner))
            start = end
        text = "".join(piece.text for piece in pieces)
        return RenderedPrompt(self._encode([pieces])[0], text, spans)

    def answer_ids(self, answer: str) -> list[int]:
        """The stripped answer as plain text, and `<eod>`."""
        return self.all_answer_ids([answer])[0]

    def all_prompt_ids(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """See `ChatRenderer.all_prompt_ids`."""
        return self._encode([render_yuan2(messages) for messages in prompts])

    def all_answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """See `ChatRenderer.all_answer_ids`."""
        typed = self._typed([answer.strip() for answer in answers])
        return [[*ids, self._end] for ids in typed]

    def _encode(self, prompts: Sequence[Sequence[Piece]]) -> list[list[int]]:
        runs = [_runs(pieces) for pieces in prompts]
        typed = iter(self._typed([run for own in runs for run in own if run is not None]))
        encoded = []
        for own in runs:
            ids: list[int] = []
            for run in own:
                ids += (self._answer,) if run is None else next(typed)
            encoded.append(ids)
        return encoded

    def _typed(self, texts: list[str]) -> list[list[int]]:
        parse = self._parse_special
        if len(texts) == 1:
            return [self._tokenizer.encode_ids(texts[0], parse_special=parse)]
        # One thread: who has many prompts to render spreads them over processes.
        ids: list[list[int]] = self._tokenizer.encode_ids_batch(
            texts, parse_special=parse, threads=1
        )
        return ids


def _runs(pieces: Sequence[Piece]) -> list[str | None]:
    """Text that somebody typed, and None for each control token."""
    # Neighbouring typed pieces are one run: tokens may straddle `<n>`, as they did when the
    # published models were tuned.
    runs: list[str | None] = []
    typed: list[str] = []
    for piece in pieces:
        if not piece.control:
            typed.append(piece.text)
            continue
        runs += ["".join(typed), None] if typed else [None]
        typed = []
    return [*runs, "".join(typed)] if typed else runs


class JinjaChatRenderer(ChatRenderer):
    """Any model's own chat template, as its tokenizer ships it.

    Special tokens typed inside a message are encoded as plain text.

    Args:
        tokenizer: a transformers tokenizer with a `chat_template`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: Messages) -> RenderedPrompt:
        """See `ChatRenderer.render`."""
        import jinja2

        if not messages:
            raise _no_messages()
        plain = [dict(message) for message in messages]
        options: dict[str, Any] = {"add_generation_prompt": True}
        try:
            text: str = self._tokenizer.apply_chat_template(plain, tokenize=False, **options)
            encoded = self._tokenizer.apply_chat_template(
                plain, tokenize=True, sanitize_control_tokens=True, return_dict=True, **options
            )
        except jinja2.TemplateError as error:
            raise RequestError(
                f"The model's chat template refused these messages: {error}.", param="messages"
            ) from error
        return RenderedPrompt(list(encoded["input_ids"]), text, [])

    def answer_ids(self, answer: str) -> list[int]:
        """The answer's ids and the tokenizer's end token."""
        return _with_end(self._tokenizer, answer)


class TemplateChatRenderer(ChatRenderer):
    """A registered conversation template, for models without a chat template of their own.

    Args:
        conversation: the template; messages it holds already come first.
        tokenizer: any transformers tokenizer.
    """

    def __init__(self, conversation: Conversation, tokenizer: Any) -> None:
        self._conversation = conversation
        self._tokenizer = tokenizer

    def render(self, messages: Messages) -> RenderedPrompt:
        """See `ChatRenderer.render`."""
        conversation = fill(self._conversation, messages)
        text = conversation.get_prompt()
        ids: list[int] = self._tokenizer(text)["input_ids"]
        return RenderedPrompt(list(ids), text, conversation.spans())

    def answer_ids(self, answer: str) -> list[int]:
        """The answer's ids and the tokenizer's end token."""
        return _with_end(self._tokenizer, answer)


def fill(template: Conversation, messages: Messages) -> Conversation:
    """A copy of a template with OpenAI messages in it and an open turn for the answer.

    Raises:
        RequestError: no messages, or an unknown role.
    """
    if not messages:
        raise _no_messages()
    conversation = template.copy()
    for index, message in enumerate(messages):
        if message["role"] == "system":
            conversation.set_system_message(message["content"])
        elif message["role"] in ("user", "assistant"):
            role = conversation.roles[message["role"] == "assistant"]
            conversation.append_message(role, message["content"])
        else:
            raise RequestError(
                f"messages[{index}].role is {message['role']!r};"
                " allowed are 'system', 'user' and 'assistant'.",
                param=f"messages[{index}].role",
            )
    conversation.append_message(conversation.roles[1], None)
    return conversation


def _with_end(tokenizer: Any, answer: str) -> list[int]:
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def _no_messages() -> RequestError:
    return RequestError(
        "The message list is empty; at least one message is needed.", param="messages"
    )
