"""Asking and telling a controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastchat.errors import UnknownModelError
from fastchat.protocol.worker import (
    HeartBeat,
    HeartBeatAnswer,
    ModelNames,
    RegisterWorker,
    RemoveWorker,
    WorkerAddress,
)
from fastchat.serve.cluster.connections import Connections
from fastchat.serve.cluster.transport import Answer, post, posted

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ControllerClient:
    """A controller at an address. Every method raises as `transport.post` does.

    Attributes:
        token: the secret that workers share with the controller, if there is one.
    """

    http: Connections
    address: str
    timeout_s: float = _TIMEOUT_S
    token: str = ""

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

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
            headers=self._headers(),
        )

    async def _tell(self, path: str, body: object) -> None:
        url = self._url(path)
        async with posted(
            self.http,
            url,
            body,
            who="controller",
            timeout_s=self.timeout_s,
            headers=self._headers(),
        ) as response:
            await response.whole()

    async def register(self, message: RegisterWorker) -> None:
        """Announces a worker.

        Raises:
            RequestError: the controller refused it, and says why.
        """
        await self._tell("/register_worker", message.model_dump())

    async def heart_beat(self, message: HeartBeat) -> HeartBeatAnswer:
        """Sends a sign of life. Returns whether the controller knows the worker."""
        return await self._ask("/receive_heart_beat", message.model_dump(), HeartBeatAnswer)

    async def remove(self, worker: str) -> None:
        """Takes a worker's leave."""
        await self._tell("/remove_worker", RemoveWorker(worker_name=worker).model_dump())

    async def list_models(self) -> list[str]:
        """Names of the models that are served."""
        return (await self._ask("/list_models", None, ModelNames)).models

    async def worker_address(
        self, model: str, *, prefix: Sequence[str] = (), failed: Sequence[str] = ()
    ) -> WorkerAddress:
        """A worker for a model.

        Args:
            model: its name.
            prefix, failed: see `DispatchQuestion`.
        """
        body: dict[str, Any] = {"model": model}
        more = {"prefix": list(prefix), "failed": list(failed)}
        body |= {name: value for name, value in more.items() if value}
        return await self._ask("/get_worker_address", body, WorkerAddress)

    async def serving(self, model: str) -> str:
        """The address of a worker for a model.

        Raises:
            UnknownModelError: there is none; names the models that there are.
        """
        address = (await self.worker_address(model)).address
        if not address:
            known = ", ".join(await self.list_models()) or "none"
            raise UnknownModelError(f"No worker serves {model!r}.", hint=f"Models: {known}.")
        return address

    async def refresh_all_workers(self) -> None:
        """Makes the controller ask every worker for its state."""
        await self._tell("/refresh_all_workers", None)
