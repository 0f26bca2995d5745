"""Answers from a server with OpenAI's API: this project's own, or any other."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from fastchat.constants import WORKER_API_TIMEOUT
from fastchat.errors import (
    AuthenticationError,
    FastChatError,
    GenerationError,
    OverloadedError,
    RequestError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from fastchat.serve.talking.answer import Progress, Question
from fastchat.serve.talking.backend import Room

_CONNECT_S = 5.0
_BY_STATUS: Mapping[int, type[FastChatError]] = {
    400: RequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: UnknownModelError,
    413: RequestError,
    422: RequestError,
    429: OverloadedError,
    503: WorkerUnavailableError,
    504: WorkerTimeoutError,
}


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
        self._http = httpx2.AsyncClient(
            base_url=server.base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {server.api_key}"} if server.api_key else {},
            timeout=httpx2.Timeout(WORKER_API_TIMEOUT, connect=_CONNECT_S, pool=None),
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=2.0),
            trust_env=not _on_this_machine(server.base_url),
        )

    async def models(self) -> list[str]:
        """See `Backend.models`."""
        if self._server.models:
            return list(self._server.models)
        async with self._sent("GET", "models") as response:
            body = _object(await response.aread())
        try:
            return [str(model["id"]) for model in body["data"]]
        except (KeyError, TypeError) as error:
            raise self._no_api() from error

    async def stream(self, question: Question) -> AsyncGenerator[Progress, None]:
        """See `Backend.stream`."""
        text, progress, ended = "", Progress(""), False
        async with self._sent(
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
                event = _object(data.encode())
                if "error" in event:
                    raise _error_in(event, GenerationError)
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
            async with self._sent("POST", url, json={"prompts": [prompt]}) as response:
                (found,) = _object(await response.aread())["prompts"]
            return Room(int(found["tokenCount"]), int(found["contextLength"]))
        except (FastChatError, KeyError, TypeError, ValueError):
            return None

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._http.aclose()

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

    @asynccontextmanager
    async def _sent(
        self, method: str, url: str, **more: Any
    ) -> AsyncGenerator[httpx2.Response, None]:
        where = self._server.base_url
        try:
            async with self._http.stream(method, url, **more) as response:
                if response.status_code != httpx2.codes.OK:
                    raise _refused(where, response.status_code, await response.aread())
                yield response
        except (httpx2.ConnectTimeout, httpx2.ConnectError) as error:
            raise WorkerUnavailableError(
                f"The server at {where} cannot be reached: {error}.",
                hint="Start it, or name another one with --url.",
            ) from error
        except httpx2.TimeoutException as error:
            raise WorkerTimeoutError(
                f"The server at {where} sent nothing for {WORKER_API_TIMEOUT} seconds."
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise WorkerUnavailableError(f"The server at {where} broke off: {reason}.") from error

    def _no_api(self) -> WorkerUnavailableError:
        return WorkerUnavailableError(
            f"What answers at {self._server.base_url} has no OpenAI-compatible API.",
            hint="The URL has to end as the API's does, usually with /v1.",
        )


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise WorkerUnavailableError(f"The server sent what is no JSON object: {data!r:.80}.")
    return value


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


def _error_in(body: Mapping[str, Any], kind: type[FastChatError]) -> FastChatError:
    error = body.get("error", body)
    told = error.get("message") if isinstance(error, dict) else error
    return kind(str(told or body)[:1000])


def _refused(where: str, status: int, body: bytes) -> FastChatError:
    kind = _BY_STATUS.get(status, GenerationError)
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict) and (told.get("error") or told.get("message")):
        return _error_in(told, kind)
    shown = body.decode(errors="replace").strip()[:200]
    return kind(f"The server at {where} answered with HTTP status {status}: {shown or 'nothing'}.")
