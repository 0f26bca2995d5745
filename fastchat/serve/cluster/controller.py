"""A controller: the table of workers together with the clock, the chance and the wire."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric

from fastchat.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from fastchat.errors import (
    AuthenticationError,
    FastChatError,
    RequestError,
    SettingsError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from fastchat.protocol.worker import (
    DispatchQuestion,
    HeartBeat,
    HeartBeatAnswer,
    RegisterWorker,
    WorkerAddress,
    encode_frame,
    error_chunk,
)
from fastchat.serve.cluster import addresses
from fastchat.serve.cluster.addresses import AddressPolicy, parse_worker_url
from fastchat.serve.cluster.dispatch import DISPATCH_METHODS
from fastchat.serve.cluster.registry import Registry
from fastchat.serve.cluster.secrets import bearer, controller_token, same_secret
from fastchat.serve.cluster.transport import new_client
from fastchat.serve.cluster.worker_client import WorkerClient
from fastchat.serve.metrics import PREFIX, Readings, gauge

logger = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[list[str]]]


def _policy_of_environment() -> AddressPolicy:
    return AddressPolicy.parse(os.environ.get(addresses.VARIABLE, ""))


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a controller can be told.

    Attributes:
        dispatch_method: a name in `DISPATCH_METHODS`.
        expiration_s: how long a worker may be silent.
        heart_beat_s: how often workers are asked for signs of life; those that do not know
            the question keep their own pace.
        token: the secret that workers have to send; "" asks for none.
        policy: whose URLs may be registered.
    """

    dispatch_method: str = "shortest_queue"
    expiration_s: float = CONTROLLER_HEART_BEAT_EXPIRATION
    heart_beat_s: float = 1.0
    token: str = field(default_factory=controller_token)
    policy: AddressPolicy = field(default_factory=_policy_of_environment)

    def __post_init__(self) -> None:
        if self.dispatch_method not in DISPATCH_METHODS:
            raise SettingsError(
                f"The dispatch method is {self.dispatch_method!r}; known are"
                f" {', '.join(DISPATCH_METHODS)}.",
                param="--dispatch-method",
            )


async def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host.

    Raises:
        RequestError: it has none.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RequestError(
            f"The worker's host {host!r} cannot be resolved: {error}.", param="worker_name"
        ) from error
    return [str(entry[4][0]) for entry in found]


class Controller:
    """See the module. Clock, chance and name resolution are arguments."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        now: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
        resolve: Resolve = resolved,
    ) -> None:
        self.settings = settings
        self.registry = Registry(settings.expiration_s, late_s=5 * settings.heart_beat_s)
        self._choose = DISPATCH_METHODS[settings.dispatch_method]()
        self._now = now
        self._chance = chance or random.Random()
        self._resolve = resolve
        self._http = new_client()
        self.metrics = CollectorRegistry()
        self.metrics.register(Readings(self._read))
        dispatched = Counter(
            PREFIX + "dispatch", "Requests given to workers.", ("policy",), registry=self.metrics
        )
        self._dispatched = dispatched.labels(settings.dispatch_method)

    async def close(self) -> None:
        """Closes the connections to workers."""
        await self._http.aclose()

    async def sweep(self) -> None:
        """Forgets silent workers even while nobody asks; goes on until it is cancelled."""
        while True:
            self.expire()
            await asyncio.sleep(self.settings.heart_beat_s)

    def check_token(self, authorization: str) -> None:
        """Makes sure that whoever changes the table knows the secret.

        Raises:
            AuthenticationError: there is a secret, and it was not sent.
        """
        expected = self.settings.token
        if expected and not same_secret(bearer(authorization), expected):
            raise AuthenticationError(
                "The controller asks for a secret that was not sent, or another one was.",
                hint="Give workers the controller's FASTCHAT_CONTROLLER_TOKEN.",
            )

    def _worker(self, address: str) -> WorkerClient:
        return WorkerClient(self._http, address)

    def expire(self) -> None:
        """Forgets the workers that have fallen silent."""
        for address in self.registry.expire(now=self._now()):
            logger.warning("Worker %s has fallen silent and is removed", address)

    async def register(self, message: RegisterWorker) -> None:
        """Adds a worker; asks it for its state if the message does not tell.

        Raises:
            RequestError: the name is no URL, or nothing answers there.
            ForbiddenError: workers may not be there.
        """
        url = parse_worker_url(message.worker_name)
        self.settings.policy.check(url.host, await self._resolve(url.host, url.port))
        status = message.worker_status
        if status is None:
            try:
                status = await self._worker(message.worker_name).status()
            except (WorkerUnavailableError, WorkerTimeoutError) as error:
                raise RequestError(
                    f"The worker cannot be registered: {error}", param="worker_name"
                ) from error
        self.registry.register(
            message.worker_name,
            status,
            now=self._now(),
            check_heart_beat=message.check_heart_beat,
            multimodal=message.multimodal,
        )
        logger.info("Worker %s serves %s", message.worker_name, ", ".join(status.model_names))

    def remove(self, address: str) -> None:
        """Forgets a worker that takes its leave."""
        if self.registry.remove(address):
            logger.info("Worker %s has left", address)

    def heart_beat(self, message: HeartBeat) -> HeartBeatAnswer:
        """Notes a worker's sign of life. Tells whether it is known."""
        known = self.registry.heart_beat(message.worker_name, message.queue_length, now=self._now())
        return HeartBeatAnswer(exist=known, next_s=self.settings.heart_beat_s)

    async def refresh(self) -> None:
        """Asks every worker for its state, all at once."""
        self.expire()
        await asyncio.gather(*map(self._refresh_one, self.registry.addresses()))

    async def _refresh_one(self, address: str) -> None:
        try:
            status = await self._worker(address).status()
        except FastChatError as error:
            logger.warning("Worker %s did not tell its state: %s", address, error)
            self.registry.missed(address)
        else:
            self.registry.update(address, status, now=self._now())

    def worker_address(self, question: DispatchQuestion) -> WorkerAddress:
        """A worker for a model, which counts as one request busier; "" if there is none."""
        self.expire()
        for address in question.failed:
            self.registry.missed(address)
        workers = self.registry.serving(question.model, tried=question.failed)
        if not workers:
            return WorkerAddress(address="")
        entry = self._choose(workers, question.prefix, self._chance)
        self.registry.sent(entry.address)
        self._dispatched.inc()
        return WorkerAddress(address=entry.address, alone=len(workers) == 1)

    async def forward(self, params: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """A worker's stream, chunk by chunk; failures become an error chunk."""
        model = str(params.get("model", ""))
        address = self.worker_address(DispatchQuestion(model=model)).address
        if not address:
            error = WorkerUnavailableError(f"No worker serves the model {model!r}.")
            yield encode_frame(error_chunk(error))
            return
        try:
            async with aclosing(self._worker(address).frames(params)) as frames:
                async for frame in frames:
                    yield frame + b"\0"
        except FastChatError as error:
            if isinstance(error, WorkerUnavailableError):
                self.registry.missed(address)
            yield encode_frame(error_chunk(error))

    def _read(self) -> Iterable[Metric]:
        self.expire()
        entries = self.registry.entries()
        now = self._now()
        yield gauge("workers_registered", "Workers in the table.", [({}, len(entries))])
        yield gauge(
            "worker_queue_length",
            "Requests running and waiting.",
            [({"worker": entry.address}, entry.queue_length) for entry in entries],
        )
        yield gauge(
            "worker_heartbeat_age_seconds",
            "Since a worker's last sign of life.",
            [({"worker": entry.address}, now - entry.last_heart_beat) for entry in entries],
        )
