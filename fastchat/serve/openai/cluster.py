"""The API server's view of the cluster: which worker to ask, and its template."""

from __future__ import annotations

import time

from fastchat.conversation import Conversation
from fastchat.errors import UnknownModelError, WorkerUnavailableError
from fastchat.serve.cluster.controller_client import ControllerClient
from fastchat.serve.cluster.transport import new_client
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.openai.settings import AppSettings

_TEMPLATE_LIFE_S = 60.0


class Cluster:
    """Finds workers by way of the controller."""

    def __init__(self, settings: AppSettings) -> None:
        self._settings = settings
        self._http = new_client()
        self._templates: dict[tuple[str, str], tuple[float, Conversation]] = {}

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

    async def worker_for(self, model: str) -> WorkerClient:
        """A worker that serves the model.

        Raises:
            UnknownModelError: other models are served, but not this one.
            WorkerUnavailableError: no worker is there, or the controller is not.
        """
        address = await self.controller.worker_address(model)
        if address:
            return self.worker_at(address)
        models = await self.models()
        if not models:
            raise WorkerUnavailableError("No model worker is registered at the controller.")
        raise UnknownModelError(
            f"There is no model named {model!r}.",
            hint=f"Models that are served: {', '.join(models)}.",
            param="model",
        )

    async def template(self, worker: WorkerClient, model: str) -> Conversation:
        """The model's conversation template, asked for once a minute at most."""
        key, now = (worker.address, model), time.monotonic()
        known = self._templates.get(key)
        if known is None or known[0] < now:
            known = (now + _TEMPLATE_LIFE_S, await worker.conv_template(model))
            self._templates[key] = known
        return known[1]
