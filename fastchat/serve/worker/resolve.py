"""From a worker's parameters to a request of the engine. Pure.

Here is decided which value counts when several could: what the client asked for, then
the model's own defaults, then the sender's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastchat.chat import RenderedPrompt
from fastchat.engine.base import GenerationRequest, Grammar, SamplingParams
from fastchat.engine.served import ServedModel
from fastchat.errors import ContextOverflowError, RequestError
from fastchat.protocol.worker import GenerateParams

_PLAIN_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "no_repeat_ngram",
    "min_new_tokens",
    "ignore_eos",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What to generate, and how to tell of it.

    Attributes:
        echo: text that stands before the answer's in every chunk.
    """

    request: GenerationRequest
    echo: str


def resolve(params: GenerateParams, served: ServedModel, *, adapter: str | None = None) -> Resolved:
    """Checks and completes parameters.

    Args:
        adapter: the one that the model's name implies.

    Raises:
        RequestError: a wish that cannot be granted; names the field.
        ContextOverflowError: the prompt, or the prompt plus max_new_tokens, is too long.
    """
    _refuse_what_is_not_done(params)
    ids, text = prompt_of(params, served)
    asked = params.grammar
    sampling = SamplingParams(
        **{name: _value(name, params, served) for name in _PLAIN_FIELDS},
        max_new_tokens=_max_new_tokens(params, served, len(ids)),
        stop=_stop_strings(params, served),
        stop_token_ids=_stop_token_ids(params, served),
        grammar=None if asked is None else Grammar(asked.kind, asked.text),
        logprobs=params.logprobs,
        prompt_logprobs=params.logprobs if params.echo else None,
    )
    request = GenerationRequest(
        ids,
        sampling,
        params.request_id,
        adapter=params.adapter or adapter,
        priority=params.priority,
        deadline_s=params.deadline_s,
        cache_salt=params.cache_salt,
    )
    return Resolved(request, text if params.echo else "")


def prompt_of(params: GenerateParams, served: ServedModel) -> tuple[list[int], str]:
    """The prompt as ids and as text.

    Raises:
        RequestError: there is none, or the messages are not of the template's form.
    """
    if params.messages is not None:
        check_messages(params.messages)
        rendered = served.chat.render(params.messages)
        if params.truncation == "auto":
            rendered = _shortened(params, served, rendered)
        return rendered.ids, rendered.text
    if params.token_ids is not None:
        ids = list(params.token_ids)
        text = served.codec.decode_ids(ids) if params.echo else ""
    else:
        text = params.prompt or ""
        ids = served.codec.encode_ids(text, parse_special=True)
    if not ids:
        raise RequestError("The prompt is empty; at least one token is needed.", param="prompt")
    return ids, text


def _shortened(
    params: GenerateParams, served: ServedModel, rendered: RenderedPrompt
) -> RenderedPrompt:
    """The prompt without as many of the oldest turns as it takes to fit."""
    wished = params.max_new_tokens if params.wished("max_new_tokens") else None
    room = served.engine.context_length - (wished or 1)
    if len(rendered.ids) <= room:
        return rendered
    shorter = [params.messages or []]
    while len(fewer := without_oldest_turn(shorter[-1])) < len(shorter[-1]):
        shorter.append(fewer)
    # The fewer turns, the shorter: the first that leaves room is the one.
    place = bisect_left(
        shorter, True, lo=1, key=lambda messages: len(served.chat.render(messages).ids) <= room
    )
    return served.chat.render(shorter[min(place, len(shorter) - 1)])


def without_oldest_turn(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Messages without the first question and what belongs to it.

    System messages stay, and so does the last question.
    """
    questions = [at for at, message in enumerate(messages) if message["role"] == "user"]
    if len(questions) < 2:
        return list(messages)
    end = questions[1]
    kept = [message for message in messages[:end] if message["role"] == "system"]
    return [*kept, *messages[end:]]


def check_messages(messages: Sequence[dict[str, str]]) -> None:
    """Makes sure that every message says who speaks and what.

    Raises:
        RequestError: names the message.
    """
    for index, message in enumerate(messages):
        for key in ("role", "content"):
            if key not in message:
                raise RequestError(
                    f"messages[{index}] has no {key!r}.", param=f"messages[{index}].{key}"
                )


def _refuse_what_is_not_done(params: GenerateParams) -> None:
    if params.use_beam_search:
        raise RequestError("Beam search is not available.", param="use_beam_search")
    if params.best_of is not None and params.best_of > 1:
        raise RequestError(
            f"best_of is {params.best_of}; a worker gives one answer per request.",
            param="best_of",
        )
    if params.images:
        raise RequestError("This model reads text only; images were sent.", param="images")


def _value(name: str, params: GenerateParams, served: ServedModel) -> Any:
    sent = getattr(params, name)
    if params.wished(name):
        return sent
    default = served.defaults.get(name)
    return sent if default is None else default


def _max_new_tokens(params: GenerateParams, served: ServedModel, prompt: int) -> int | None:
    context = served.engine.context_length
    rest = context - prompt
    if rest < 1:
        raise ContextOverflowError(
            f"This model's maximum context length is {context} tokens, and the prompt takes"
            f" {prompt}.",
            hint="At least one token must be left for the answer; shorten the prompt.",
            param="messages" if params.messages is not None else "prompt",
        )
    asked: int | None = _value("max_new_tokens", params, served)
    if asked is None:
        return None
    if not params.wished("max_new_tokens"):
        return min(asked, rest)
    if asked > rest:
        raise ContextOverflowError(
            f"This model's maximum context length is {context} tokens, but the prompt takes"
            f" {prompt} and {asked} more were asked for.",
            hint=f"Ask for {rest} tokens at most, or shorten the prompt.",
            param="max_tokens",
        )
    return asked


def _as_list(stop: str | list[str] | None) -> list[str]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else stop


def _stop_strings(params: GenerateParams, served: ServedModel) -> tuple[str, ...]:
    # An end token is stopped at by its id: as a string it would also match typed text.
    asked = _as_list(params.stop)
    if params.messages is not None:
        asked = asked + _as_list(served.conversation.stop_str)
    ends = {served.codec.decode_ids([end]) for end in served.stop_token_ids}
    return tuple(dict.fromkeys(stop for stop in asked if stop and stop not in ends))


def _stop_token_ids(params: GenerateParams, served: ServedModel) -> tuple[int, ...]:
    asked = list(params.stop_token_ids)
    if params.messages is not None and not params.ignore_eos:
        asked += served.conversation.stop_token_ids or []
    return tuple(dict.fromkeys(asked))


def text_size(params: GenerateParams) -> int:
    """Characters that have to be tokenised."""
    messages = params.messages or []
    return len(params.prompt or "") + sum(len(message.get("content", "")) for message in messages)
