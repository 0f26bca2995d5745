"""The API server's view of the cluster: which worker to ask, and whom instead if it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastchat.conversation import Conversation
from fastchat.errors import (
    FastChatError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from fastchat.protocol.worker import Chunk
from fastchat.serve.cluster.connections import Connections
from fastchat.serve.cluster.controller_client import ControllerClient
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.openai.gathering import Gathered
from fastchat.serve.openai.settings import AppSettings

T = TypeVar("T")

_TEMPLATE_LIFE_S = 60.0
_ATTEMPTS = 3
_ALONE_S = 0.5
_REMEMBERED_S = 300.0
_RESTART_S = 15.0
_CONTROLLER_DELAYS_S = (0.1, 0.3, 0.6)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        model: its name.
        prefix: see `DispatchQuestion`.
        worker: who is asked now.
        failed: addresses that were asked before and could not be reached.
    """

    model: str
    prefix: Sequence[str]
    worker: WorkerClient
    failed: tuple[str, ...] = ()


class Cluster:
    """Finds workers by way of the controller.

    It remembers whom the controller named of late: while that one is away or has just been
    restarted, requests go on as before.
    """

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._http = Connections()
        self._templates: dict[tuple[str, str], tuple[float, Conversation]] = {}
        self._named: dict[str, dict[str, float]] = {}
        self._alone: dict[str, tuple[float, str]] = {}

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @property
    def controller(self) -> ControllerClient:
        """The controller at the address that the settings hold now."""
        return ControllerClient(self._http, self._settings.controller_address)

    def worker_at(self, address: str) -> WorkerClient:
        """The worker at an address."""
        return WorkerClient(self._http, address, self._settings.worker_timeout_s)

    async def models(self) -> list[str]:
        """Names of the models that are served."""
        return await self.controller.list_models()

    async def worker_for(
        self, model: str, prefix: Sequence[str] = (), failed: Sequence[str] = ()
    ) -> WorkerClient:
        """A worker that serves the model.

        Raises:
            UnknownModelError: other models are served, but not this one.
            WorkerUnavailableError: no worker is there, or the controller is not.
        """
        alone = self._alone.get(model)
        if alone is not None and alone[0] > time.monotonic() and alone[1] not in failed:
            return self.worker_at(alone[1])
        try:
            answer = await self.controller.worker_address(model, prefix=prefix, failed=failed)
            address = answer.address
        except (WorkerUnavailableError, WorkerTimeoutError):
            address = self._remembered(model, failed, _REMEMBERED_S)
            if not address:
                address = await self._insist(model, prefix, failed)
        else:
            if answer.alone:
                self._alone[model] = time.monotonic() + _ALONE_S, address
            if address:
                self._named.setdefault(model, {})[address] = time.monotonic()
            else:
                address = self._remembered(model, failed, _RESTART_S)
        if address:
            return self.worker_at(address)
        models = await self.models()
        if not models:
            raise WorkerUnavailableError("No model worker is registered at the controller.")
        raise UnknownModelError(
            f"There is no model named {model!r:.200}.",
            hint=f"Models that are served: {', '.join(models)}.",
            param="model",
        )

    def _remembered(self, model: str, failed: Sequence[str], within_s: float) -> str:
        since = time.monotonic() - within_s
        known = self._named.get(model, {})
        fresh = [address for address, at in known.items() if at >= since and address not in failed]
        return max(fresh, key=known.__getitem__, default="")

    async def _insist(self, model: str, prefix: Sequence[str], failed: Sequence[str]) -> str:
        """Asks the controller again for a second, in which one may have been restarted."""
        for delay_s in _CONTROLLER_DELAYS_S[:-1]:
            await asyncio.sleep(delay_s)
            try:
                return await self._asked(model, prefix, failed)
            except (WorkerUnavailableError, WorkerTimeoutError):
                continue
        await asyncio.sleep(_CONTROLLER_DELAYS_S[-1])
        return await self._asked(model, prefix, failed)

    async def _asked(self, model: str, prefix: Sequence[str], failed: Sequence[str]) -> str:
        answer = await self.controller.worker_address(model, prefix=prefix, failed=failed)
        return answer.address

    async def route(self, model: str, prefix: Sequence[str] = ()) -> tuple[Route, Conversation]:
        """A worker for a request, and the model's template.

        Raises:
            UnknownModelError: see `worker_for`.
            WorkerUnavailableError: see `worker_for`.
        """
        route = Route(model, prefix, await self.worker_for(model, prefix))
        while True:
            try:
                return route, await self.template(route.worker, model)
            except WorkerUnavailableError as error:
                route = await self._other(route, error)

    async def _other(self, route: Route, error: FastChatError) -> Route:
        """The same request at another worker.

        Raises:
            FastChatError: the given error, if there is no other one or too many have failed.
        """
        failed = (*route.failed, route.worker.address)
        if len(failed) >= _ATTEMPTS:
            raise error
        try:
            worker = await self.worker_for(route.model, route.prefix, failed)
        except FastChatError:
            raise error from None
        if worker.address in failed:
            raise error
        return replace(route, worker=worker, failed=failed)

    async def stream(self, route: Route, params: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """An answer chunk by chunk.

        If its worker goes away before there is any output, another one is asked.

        Raises:
            FastChatError: as `WorkerClient.generate_stream`, once there is no other way.
        """
        while True:
            told = False
            try:
                async with aclosing(route.worker.generate_stream(params)) as chunks:
                    async for chunk in chunks:
                        told = told or bool(chunk["text"] or chunk.get("finish_reason"))
                        yield chunk
                return
            except WorkerUnavailableError as error:
                if told:
                    raise
                route = await self._other(route, error)

    async def whole(self, route: Route, params: Mapping[str, Any]) -> Chunk:
        """A complete answer; as nothing is told before, another worker may always take over.

        Raises:
            FastChatError: see `stream`.
        """
        while True:
            gathered = Gathered()
            try:
                async with aclosing(route.worker.generate_stream(params)) as chunks:
                    async for chunk in chunks:
                        gathered.add(chunk)
                return gathered.chunk()
            except WorkerUnavailableError as error:
                route = await self._other(route, error)

    async def ask(self, model: str, question: Callable[[WorkerClient], Awaitable[T]]) -> T:
        """A worker's answer to a question, of another worker if the first one goes away."""
        route = Route(model, (), await self.worker_for(model))
        while True:
            try:
                return await question(route.worker)
            except WorkerUnavailableError as error:
                route = await self._other(route, error)

    async def template(self, worker: WorkerClient, model: str) -> Conversation:
        """The model's conversation template, asked for once a minute at most."""
        key, now = (worker.address, model), time.monotonic()
        known = self._templates.get(key)
        if known is None or known[0] < now:
            known = (now + _TEMPLATE_LIFE_S, await worker.conv_template(model))
            self._templates[key] = known
        return known[1]
