"""Asking and telling a controller."""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from fastchat.protocol.worker import (
    HeartBeat,
    HeartBeatAnswer,
    ModelNames,
    RegisterWorker,
    WorkerAddress,
)
from fastchat.serve.cluster.transport import Answer, post, posted

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ControllerClient:
    """A controller at an address. Every method raises as `transport.post` does."""

    http: httpx2.AsyncClient
    address: str
    timeout_s: float = _TIMEOUT_S

    def _url(self, path: str) -> str:
        return self.address.rstrip("/") + path

    async def _ask(self, path: str, body: object, answer: type[Answer]) -> Answer:
        return await post(
            self.http,
            self._url(path),
            body,
            who="controller",
            timeout_s=self.timeout_s,
            answer=answer,
        )

    async def _tell(self, path: str, body: object) -> None:
        url = self._url(path)
        async with posted(
            self.http, url, body, who="controller", timeout_s=self.timeout_s
        ) as response:
            await response.aread()

    async def register(self, message: RegisterWorker) -> None:
        """Announces a worker.

        Raises:
            RequestError: the controller refused it, and says why.
        """
        await self._tell("/register_worker", message.model_dump())

    async def heart_beat(self, message: HeartBeat) -> bool:
        """Sends a sign of life. Returns whether the controller knows the worker."""
        answer = await self._ask("/receive_heart_beat", message.model_dump(), HeartBeatAnswer)
        return answer.exist

    async def list_models(self) -> list[str]:
        """Names of the models that are served."""
        return (await self._ask("/list_models", None, ModelNames)).models

    async def worker_address(self, model: str) -> str:
        """The URL of a worker for a model; "" if there is none."""
        return (await self._ask("/get_worker_address", {"model": model}, WorkerAddress)).address

    async def refresh_all_workers(self) -> None:
        """Makes the controller ask every worker for its state."""
        await self._tell("/refresh_all_workers", None)
