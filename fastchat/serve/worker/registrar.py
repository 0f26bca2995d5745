"""Keeps a worker known to its controller, whichever of the two starts first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fastchat.errors import FastChatError
from fastchat.protocol.worker import HeartBeat, HeartBeatAnswer, RegisterWorker, WorkerStatus
from fastchat.serve.cluster.controller_client import ControllerClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a worker speaks to its controller, in seconds.

    Attributes:
        heart_beat_s: between signs of life, unless the controller asks for more of them.
        retry_s, longest_retry_s: after a sign of life that did not get through; doubled
            each time.
        first_delay_s, longest_delay_s: between attempts to register; doubled each time.
    """

    heart_beat_s: float = 45.0
    retry_s: float = 0.25
    longest_retry_s: float = 1.0
    first_delay_s: float = 0.25
    longest_delay_s: float = 5.0


class Registrar:
    """Registers a worker, sends its heart-beats, and registers it again when it is forgotten.

    A controller of this project asks for heart-beats every second or so: it then knows how
    busy everybody is, and a restarted one is known to its workers within that time.

    Args:
        address: the URL under which the worker is reached.
        status: tells what the worker serves and how busy it is.
    """

    def __init__(
        self,
        controller: ControllerClient,
        address: str,
        status: Callable[[], WorkerStatus],
        pace: Pace,
    ) -> None:
        self._controller = controller
        self._address = address
        self._status = status
        self._pace = pace
        self.registered = False

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await self._register()
            wait_s = min(1.0, self._pace.heart_beat_s)
            while (answer := await self._beat(wait_s)).exist:
                wait_s = min(answer.next_s or self._pace.heart_beat_s, self._pace.heart_beat_s)
            self.registered = False

    async def leave(self) -> None:
        """Tells the controller that the worker goes; one that does not know the word need not."""
        self.registered = False
        try:
            await self._controller.remove(self._address)
        except FastChatError as error:
            logger.warning("The controller was not told of the end: %s", error)

    async def _register(self) -> None:
        delay_s = self._pace.first_delay_s
        while True:
            message = RegisterWorker(worker_name=self._address, worker_status=self._status())
            try:
                await self._controller.register(message)
            except FastChatError as error:
                logger.warning("Not registered, next attempt in %g s: %s", delay_s, error)
            else:
                self.registered = True
                logger.info("Registered as %s at %s", self._address, self._controller.address)
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._pace.longest_delay_s)

    async def _beat(self, wait_s: float) -> HeartBeatAnswer:
        await asyncio.sleep(wait_s)
        delay_s = self._pace.retry_s
        while True:
            message = HeartBeat(worker_name=self._address, queue_length=self._status().queue_length)
            try:
                return await self._controller.heart_beat(message)
            except FastChatError as error:
                logger.warning("Heart-beat did not get through: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, self._pace.longest_retry_s)
