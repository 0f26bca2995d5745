"""A model loaded into this process's engine, asked as a server would ask it."""

from __future__ import annotations

from contextlib import aclosing

from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.served import ServedModel
from fastchat.errors import ContextOverflowError
from fastchat.llm_judge.asking import Messages, Reply

_OWN_DEFAULTS = (
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram",
)
"""Sampling values that a model's generation config decides, also here."""


class LocalModel:
    """A loaded model with its own template and sampling values.

    Args:
        served: the model.
        max_new_tokens: a reply's longest length; shorter where the context ends before.
    """

    def __init__(self, served: ServedModel, *, max_new_tokens: int) -> None:
        self._served = served
        self._max_new_tokens = max_new_tokens
        defaults = served.defaults
        self._defaults = {name: defaults[name] for name in _OWN_DEFAULTS if name in defaults}
        ends = {served.codec.decode_ids([end]) for end in served.stop_token_ids}
        told = served.conversation.stop_str
        stops = [told] if isinstance(told, str) else told or []
        # An end token is stopped at by its id: as a string it would also match typed text.
        self._stop = tuple(stop for stop in stops if stop and stop not in ends)
        self._stop_ids = tuple(served.conversation.stop_token_ids or ())

    async def reply(self, messages: Messages, *, temperature: float, seed: int) -> Reply:
        """See `Asker.reply`."""
        served = self._served
        ids = served.chat.render(messages).ids
        room = served.engine.context_length - len(ids)
        if room < 1:
            raise ContextOverflowError(
                f"The conversation takes {len(ids)} tokens, and the model's context is"
                f" {served.engine.context_length}.",
                hint="A smaller --max-new-token leaves room for the later turns.",
            )
        sampling = SamplingParams(
            temperature=temperature,
            max_new_tokens=min(self._max_new_tokens, room),
            stop=self._stop,
            stop_token_ids=self._stop_ids,
            seed=seed,
            **self._defaults,
        )
        text, reason = "", None
        async with aclosing(served.engine.generate(GenerationRequest(ids, sampling))) as events:
            async for event in events:
                text += event.text
                reason = event.finish_reason or reason
        return Reply(text.strip(), cut=reason == "length")
