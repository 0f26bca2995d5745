"""From the events of OpenAI's streams to the chunks of FastChat's. Pure but for reading bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Literal

from fastchat.errors import GenerationError, WorkerUnavailableError
from fastchat.protocol.worker import Chunk, Usage

_DONE = "[DONE]"


async def data_lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a stream up to its [DONE].

    Raises:
        WorkerUnavailableError: an event that is no JSON object, or a stream without end.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            text = line.removeprefix(b"data:").strip().decode(errors="replace")
            if text == _DONE:
                return
            try:
                event = json.loads(text)
            except ValueError as error:
                raise WorkerUnavailableError(f"An event is no JSON: {text:.80}.") from error
            if isinstance(event, dict):
                yield event
    raise WorkerUnavailableError("The stream broke off before its end.")


class RemoteAnswer:
    """An answer as its events come in.

    Args:
        echo: text that stands before the answer.
        deltas: chunks tell what is new, in place of everything so far.
    """

    def __init__(self, echo: str, *, deltas: bool) -> None:
        self._text = echo
        self._told = 0
        self._deltas = deltas
        self._finish: Literal["stop", "length"] = "stop"
        self._usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)

    def add(self, event: dict[str, Any]) -> Iterator[Chunk]:
        """The chunks that an event makes.

        Raises:
            GenerationError: the event reports an error.
        """
        if event.get("error"):
            error = event["error"]
            raise GenerationError(str(error.get("message", error) if error else error))
        usage = event.get("usage")
        if usage:
            self._usage = Usage(
                prompt_tokens=usage["prompt_tokens"],
                completion_tokens=usage["completion_tokens"],
                total_tokens=usage["total_tokens"],
            )
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            if cached:
                self._usage["cached_tokens"] = cached
        for choice in event.get("choices") or []:
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            if choice.get("finish_reason") == "length":
                self._finish = "length"
            if text:
                self._text += text
                yield self._chunk(None)

    def end(self) -> Chunk:
        """The last chunk."""
        return self._chunk(self._finish)

    def _chunk(self, finish_reason: Literal["stop", "length"] | None) -> Chunk:
        text = self._text[self._told :] if self._deltas else self._text
        self._told = len(self._text)
        chunk = Chunk(
            text=text,
            error_code=0,
            usage=self._usage,
            finish_reason=finish_reason,
            logprobs=None,
        )
        if self._deltas:
            chunk["delta"] = True
        return chunk
