"""An engine without a model, and a tokenizer without a vocabulary file.

`EchoEngine` keeps every promise of `Engine` and answers by a script, by default with the
prompt itself; servers are tried out and tested with it. Imports no torch.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastchat.chat import YuanChatRenderer
from fastchat.conversation import get_conv_template
from fastchat.engine.base import (
    EngineStats,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TokenLogprob,
)
from fastchat.engine.served import ServedModel, TextCodec
from fastchat.errors import ContextOverflowError, RequestError

_EMBEDDING_SIZE = 8


class ByteCodec:
    """One token per byte of UTF-8, and a few control tokens after them."""

    special: Mapping[str, int] = {"<eod>": 256, "<sep>": 257}
    eos_token_id: int = 256

    def __init__(self) -> None:
        self._names = {number: name for name, number in self.special.items()}

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a control token."""
        return self.special[token]

    def encode_ids(self, text: str, *, parse_special: bool = True) -> list[int]:
        """See `TextCodec.encode_ids`."""
        if parse_special:
            for name, number in self.special.items():
                before, found, after = text.partition(name)
                if found:
                    return [*self.encode_ids(before), number, *self.encode_ids(after)]
        return list(text.encode())

    def encode_ids_batch(
        self, texts: Sequence[str], *, parse_special: bool = True, threads: int = 1
    ) -> list[list[int]]:
        """`encode_ids` of each text."""
        del threads
        return [self.encode_ids(text, parse_special=parse_special) for text in texts]

    def decode_ids(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """See `TextCodec.decode_ids`."""
        text = bytearray()
        for number in ids:
            if number < 256:
                text.append(number)
            elif not skip_special_tokens:
                text += self._names[number].encode()
        return text.decode(errors="replace")


@dataclass(slots=True)
class Script:
    """What an `EchoEngine` does.

    Attributes:
        answer: from a prompt's text to the answer's.
        gate: waited for before each token; a barrier keeps several requests in step.
        fail_after: tokens after which `failure` is raised; None never fails.
        events: given out as they are, in place of an answer.
    """

    answer: Callable[[str], str] = str
    gate: asyncio.Event | asyncio.Barrier | None = None
    fail_after: int | None = None
    failure: Exception = field(default_factory=lambda: RuntimeError("scripted failure"))
    events: Sequence[GenerationEvent] | None = None


class EchoEngine:
    """Answers by its script, token by token.

    Attributes:
        script: may be replaced between requests.
        requests: every request it was given.
        aborted: ids of the requests whose iterator was closed before the end.
    """

    def __init__(
        self,
        codec: TextCodec | None = None,
        script: Script | None = None,
        *,
        context_length: int = 1024,
        end_ids: Sequence[int] = (ByteCodec.eos_token_id,),
    ) -> None:
        self.codec: TextCodec = codec or ByteCodec()
        self.script = script or Script()
        self.requests: list[GenerationRequest] = []
        self.aborted: list[str] = []
        self.closed = False
        self._context_length = context_length
        self._end_ids = tuple(end_ids)
        self._running = 0
        self._adapters: dict[str, str] = {}

    @property
    def context_length(self) -> int:
        """See `Engine.context_length`."""
        return self._context_length

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return EngineStats(running=self._running)

    @property
    def adapters(self) -> Sequence[str]:
        """See `Engine.adapters`."""
        return list(self._adapters)

    async def load_adapter(self, name: str, folder: str) -> None:
        """Takes the name; there is nothing to load."""
        if name in self._adapters:
            raise RequestError(f"An adapter named {name} is loaded already.", param="name")
        self._adapters[name] = folder

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        if self._adapters.pop(name, None) is None:
            raise RequestError(f"No adapter named {name} is loaded.", param="model")

    async def close(self) -> None:
        """See `Engine.close`."""
        self.closed = True

    async def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """A unit vector that depends on nothing but the row."""
        for row in batch:
            if not row:
                raise RequestError("An input to embed is empty.", param="input")
            if len(row) > self._context_length:
                raise ContextOverflowError(
                    f"A row of {len(row)} tokens exceeds the context of {self._context_length}."
                )
        return [_unit_vector(row) for row in batch]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """See `Engine.generate`."""
        self._check(request)
        self.requests.append(request)
        self._running += 1
        finished = False
        try:
            for event in self._events(request):
                await self._pass_gate()
                self._fail_if_due(event.completion_tokens)
                finished = event.finish_reason is not None
                yield event
        finally:
            self._running -= 1
            if not finished:
                self.aborted.append(request.request_id)

    def _check(self, request: GenerationRequest) -> None:
        prompt, wanted = len(request.prompt_ids), request.sampling.max_new_tokens
        if not prompt:
            raise RequestError("The prompt is empty.", param="prompt")
        if prompt + (1 if wanted is None else wanted) > self._context_length:
            raise ContextOverflowError(
                f"{prompt} tokens of prompt and {wanted} of answer exceed the context of"
                f" {self._context_length}."
            )

    async def _pass_gate(self) -> None:
        if self.script.gate is None:
            await asyncio.sleep(0)
        else:
            await self.script.gate.wait()

    def _fail_if_due(self, tokens: int) -> None:
        if self.script.fail_after is not None and tokens > self.script.fail_after:
            raise self.script.failure

    def _events(self, request: GenerationRequest) -> Sequence[GenerationEvent]:
        if self.script.events is not None:
            return self.script.events
        prompt = self.codec.decode_ids(request.prompt_ids, skip_special_tokens=True)
        answer = self.codec.encode_ids(self.script.answer(prompt), parse_special=False)
        return self._answer_events(request, [*answer, self._end_ids[0]])

    def _answer_events(
        self, request: GenerationRequest, answer: Sequence[int]
    ) -> list[GenerationEvent]:
        sampling = request.sampling
        limit = sampling.max_new_tokens or self._context_length - len(request.prompt_ids)
        ends = {*self._end_ids, *sampling.stop_token_ids}
        text = _GrowingText(self.codec, sampling.stop)
        events: list[GenerationEvent] = []
        for count, token in enumerate(answer[:limit], start=1):
            stopped = token in ends or text.add(token)
            reason: FinishReason | None = (
                "stop" if stopped else "length" if count == limit else None
            )
            events.append(
                GenerationEvent(
                    text=text.take(last=reason is not None),
                    token_ids=(token,),
                    prompt_tokens=len(request.prompt_ids),
                    completion_tokens=count,
                    finish_reason=reason,
                    logprobs=self._logprobs([token], sampling.logprobs),
                    prompt_logprobs=()
                    if events
                    else self._logprobs(request.prompt_ids, sampling.prompt_logprobs, first=True),
                )
            )
            if reason:
                break
        return events

    def _logprobs(
        self, ids: Sequence[int], alternatives: int | None, *, first: bool = False
    ) -> tuple[TokenLogprob, ...]:
        if alternatives is None:
            return ()
        return tuple(
            TokenLogprob(
                token,
                self.codec.decode_ids([token]),
                None if first and place == 0 else -0.5,
                tuple((rank, f"<{rank}>", -1.0 - rank) for rank in range(alternatives)),
            )
            for place, token in enumerate(ids)
        )


class _GrowingText:
    """Text from tokens: whole characters, and nothing of a stop string."""

    def __init__(self, codec: TextCodec, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._codec = codec
        self._stops = stops
        self._text = ""
        self._given = 0

    def add(self, token: int) -> bool:
        """Takes a token in. Returns whether a stop string is complete."""
        piece = bytes([token]) if token < 256 else self._codec.decode_ids([token]).encode()
        self._text += self._decoder.decode(piece)
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:
            self._text = self._text[: min(found)]
        return bool(found)

    def take(self, *, last: bool) -> str:
        """The text that may be told now and was not before."""
        end = len(self._text)
        if not last:
            beginnings = [stop[:size] for stop in self._stops for size in range(1, len(stop))]
            end -= max((len(b) for b in beginnings if self._text.endswith(b)), default=0)
        new, self._given = self._text[self._given : end], max(self._given, end)
        return new


def _unit_vector(row: Sequence[int]) -> list[float]:
    digest = hashlib.sha256(repr(list(row)).encode()).digest()
    values = [byte - 127.5 for byte in digest[:_EMBEDDING_SIZE]]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def echo_model(
    script: Script | None = None,
    *,
    context_length: int = 1024,
    defaults: Mapping[str, object] | None = None,
) -> ServedModel:
    """An `EchoEngine` behind Yuan2's chat format, ready to be served."""
    codec = ByteCodec()
    conversation = get_conv_template("yuan2")
    conversation.stop_token_ids = [codec.eos_token_id]
    return ServedModel(
        path="echo",
        engine=EchoEngine(codec, script, context_length=context_length),
        codec=codec,
        chat=YuanChatRenderer(codec),
        conversation=conversation,
        stop_token_ids=(codec.eos_token_id,),
        defaults=dict(defaults or {}),
    )
