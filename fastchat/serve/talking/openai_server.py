"""Answers from a server with OpenAI's API: this project's own, or any other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastchat.errors import FastChatError, GenerationError, WorkerUnavailableError
from fastchat.openai_calls import OpenAICalls, error_in, json_object
from fastchat.serve.talking.answer import Progress, Question
from fastchat.serve.talking.backend import Room


@dataclass(frozen=True, slots=True)
class OpenAIServer:
    """Where a server is, and how to ask it.

    Attributes:
        base_url: with the version, such as `http://localhost:8000/v1`.
        models: names by which its models are known here, and their names there; an empty one
            takes the server's own list.
        extra_body: sent along with every question.
    """

    base_url: str
    api_key: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)


class OpenAIBackend:
    """The models of one server."""

    def __init__(self, server: OpenAIServer) -> None:
        self._server = server
        self._calls = OpenAICalls(server.base_url, server.api_key)

    async def models(self) -> list[str]:
        """See `Backend.models`."""
        if self._server.models:
            return list(self._server.models)
        async with self._calls.sent("GET", "models") as response:
            body = json_object(await response.aread())
        try:
            return [str(model["id"]) for model in body["data"]]
        except (KeyError, TypeError) as error:
            raise self._no_api() from error

    async def stream(self, question: Question) -> AsyncGenerator[Progress, None]:
        """See `Backend.stream`."""
        text, progress, ended = "", Progress(""), False
        async with self._calls.sent(
            "POST",
            "chat/completions",
            json=self._body(question),
            headers={"X-Request-ID": question.request_id},
        ) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    ended = True
                    break
                event = json_object(data.encode())
                if "error" in event:
                    raise error_in(event, GenerationError)
                text += _new_text(event)
                progress = _progress(text, event, progress)
                yield progress
        if not ended and progress.finish_reason is None:
            raise WorkerUnavailableError(
                f"The server at {self._server.base_url} broke off in the middle of the answer."
            )

    async def room(self, model: str, text: str) -> Room | None:
        """See `Backend.room`; only this project's own servers can tell."""
        url = self._server.base_url.rstrip("/").removesuffix("/v1") + "/api/v1/token_check"
        prompt = {"model": self._server.models.get(model, model), "prompt": text, "max_tokens": 0}
        try:
            async with self._calls.sent("POST", url, json={"prompts": [prompt]}) as response:
                (found,) = json_object(await response.aread())["prompts"]
            return Room(int(found["tokenCount"]), int(found["contextLength"]))
        except (FastChatError, KeyError, TypeError, ValueError):
            return None

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._calls.close()

    def _body(self, question: Question) -> dict[str, Any]:
        sampling = question.sampling
        wishes = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.repetition_penalty == 1.0:  # not OpenAI's: other servers may refuse it
            del wishes["repetition_penalty"]
        return {
            "model": self._server.models.get(question.model, question.model),
            "messages": question.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: wish for name, wish in wishes.items() if wish is not None},
            **self._server.extra_body,
        }

    def _no_api(self) -> WorkerUnavailableError:
        return WorkerUnavailableError(
            f"What answers at {self._server.base_url} has no OpenAI-compatible API.",
            hint="The URL has to end as the API's does, usually with /v1.",
        )


def _choices(event: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return event.get("choices") or ()


def _new_text(event: Mapping[str, Any]) -> str:
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in _choices(event))


def _progress(text: str, event: Mapping[str, Any], before: Progress) -> Progress:
    usage = event.get("usage") or {}
    reasons = [choice["finish_reason"] for choice in _choices(event) if choice.get("finish_reason")]
    return Progress(
        text,
        usage.get("completion_tokens", before.tokens),
        usage.get("prompt_tokens", before.prompt_tokens),
        reasons[-1] if reasons else before.finish_reason,
    )
