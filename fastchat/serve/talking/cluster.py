"""Answers from the workers of a controller, as FastChat's page gets them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastchat.chat import fill
from fastchat.conversation import Conversation
from fastchat.errors import FastChatError, UnknownModelError, WorkerUnavailableError
from fastchat.protocol.worker import Chunk
from fastchat.serve.cluster.connections import Connections
from fastchat.serve.cluster.controller_client import ControllerClient
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.talking.answer import Progress, Question
from fastchat.serve.talking.backend import Room

_TEMPLATE_LIFE_S = 60.0
_DEFAULTS = {"temperature": 0.7, "top_p": 1.0, "repetition_penalty": 1.0, "max_new_tokens": None}


class ClusterBackend:
    """The models of a controller's workers.

    Args:
        controller_address: the controller's URL.
    """

    def __init__(self, controller_address: str) -> None:
        self._http = Connections()
        self._controller = ControllerClient(self._http, controller_address)
        self._templates: dict[tuple[str, str], tuple[float, Conversation]] = {}

    async def models(self) -> list[str]:
        """See `Backend.models`."""
        return await self._controller.list_models()

    async def stream(self, question: Question) -> AsyncGenerator[Progress, None]:
        """See `Backend.stream`. A worker that is not there any more is asked for once only."""
        failed: list[str] = []
        while True:
            worker, told = await self._worker(question.model, failed), False
            try:
                params = _params(question, await self._template(worker, question.model))
                async with aclosing(worker.generate_stream(params)) as chunks:
                    async for chunk in chunks:
                        told = True
                        yield _progress(chunk)
            except WorkerUnavailableError:
                if told or failed:
                    raise
                failed.append(worker.address)
            else:
                return

    async def room(self, model: str, text: str) -> Room | None:
        """See `Backend.room`."""
        try:
            worker = await self._worker(model)
            return Room(
                *await asyncio.gather(worker.count_token(model, text), worker.context_length(model))
            )
        except FastChatError:
            return None

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._http.aclose()

    async def _template(self, worker: WorkerClient, model: str) -> Conversation:
        """The model's template, asked for once a minute at most."""
        key, now = (worker.address, model), time.monotonic()
        known = self._templates.get(key)
        if known is None or known[0] < now:
            known = (now + _TEMPLATE_LIFE_S, await worker.conv_template(model))
            self._templates[key] = known
        return known[1]

    async def _worker(self, model: str, failed: Sequence[str] = ()) -> WorkerClient:
        found = await self._controller.worker_address(model, failed=failed)
        if found.address and found.address not in failed:
            return WorkerClient(self._http, found.address)
        if failed:
            raise WorkerUnavailableError(f"The worker at {failed[0]} cannot be reached.")
        models = await self.models()
        if not models:
            raise WorkerUnavailableError("No model worker is registered at the controller.")
        raise UnknownModelError(
            f"There is no model named {model!r}.",
            hint=f"Models that are served: {', '.join(models)}.",
            param="model",
        )


def _params(question: Question, template: Conversation) -> dict[str, Any]:
    wishes = {name: getattr(question.sampling, name) for name in _DEFAULTS}
    return {
        "model": question.model,
        "messages": question.messages,
        # For workers of FastChat's own, which know no messages.
        "prompt": fill(template, question.messages).get_prompt(),
        "stop": template.stop_str,
        "stop_token_ids": template.stop_token_ids,
        "echo": False,
        "request_id": question.request_id,
        "unset": [name for name, wish in wishes.items() if wish is None],
        **{name: _DEFAULTS[name] if wish is None else wish for name, wish in wishes.items()},
    }


def _progress(chunk: Chunk) -> Progress:
    usage = chunk.get("usage")
    return Progress(
        chunk["text"],
        usage["completion_tokens"] if usage else None,
        usage["prompt_tokens"] if usage else None,
        chunk.get("finish_reason"),
    )
