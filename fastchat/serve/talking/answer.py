"""An answer as it grows, and the figures about it. Pure: times come from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STOPPED = "stopped"
"""The finish reason of an answer that a person stopped."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is to be sampled; None leaves a value to the server.

    Attributes:
        max_new_tokens: how long the answer may get, in tokens.
    """

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        messages: OpenAI messages, the system text first if there is one.
        request_id: names the request in the logs of all servers that it passes.
    """

    model: str
    messages: list[dict[str, str]]
    sampling: Sampling
    request_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What a server has told so far.

    Attributes:
        text: all of the answer so far.
        tokens: tokens of the answer; None if the server does not tell.
        prompt_tokens: tokens that were read; None if the server does not tell.
        finish_reason: None until the end.
    """

    text: str
    tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None


@dataclass(slots=True)
class Answer:
    """An answer, growing or complete.

    Attributes:
        asked_s, first_s, last_s: when it was asked for, when its first text came and when the
            last news came, in seconds of one clock.
    """

    request_id: str
    asked_s: float
    text: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    finish_reason: str | None = None
    first_s: float | None = None
    last_s: float = 0.0

    def hear(self, progress: Progress, now_s: float) -> None:
        """Takes in news."""
        if progress.text and self.first_s is None:
            self.first_s = now_s
        self.last_s = now_s
        self.text = progress.text
        self.tokens = progress.tokens if progress.tokens is not None else self.tokens
        if progress.prompt_tokens is not None:
            self.prompt_tokens = progress.prompt_tokens
        self.finish_reason = progress.finish_reason or self.finish_reason

    @property
    def first_token_s(self) -> float | None:
        """Seconds from the question to the first text."""
        return None if self.first_s is None else self.first_s - self.asked_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second after the first one."""
        if self.first_s is None or not self.tokens or self.tokens < 2:
            return None
        spent = self.last_s - self.first_s
        return (self.tokens - 1) / spent if spent > 0 else None

    def stats(self) -> dict[str, Any]:
        """The figures as JSON values, without those that are not known."""
        figures = {
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "tokens_per_s": _rounded(self.tokens_per_s),
            "first_token_s": _rounded(self.first_token_s),
            "finish_reason": self.finish_reason,
            "request_id": self.request_id,
        }
        return {name: value for name, value in figures.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
