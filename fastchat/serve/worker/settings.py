"""What a worker can be told about serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastchat.constants import WORKER_HEART_BEAT_INTERVAL
from fastchat.serve.draining import DRAIN_S
from fastchat.serve.worker.registrar import Pace


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """A LoRA adapter beside a served model.

    Attributes:
        base: name of the model.
        folder: where peft wrote the adapter.
    """

    base: str
    folder: str


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker can be told about serving, as opposed to about its model.

    Attributes:
        model_names: the names it serves its model under.
        worker_address: the URL under which others reach it.
        controller_address: None keeps it to itself.
        controller_token: the secret that it shares with the controller.
        limit_worker_concurrency: requests handed to the engine at once, the rest waits in
            line; None leaves it to the engine, which batches and queues by itself.
        queue_limit: requests in line at most; further ones are refused at once.
        stream_interval: tokens between two chunks of a stream.
        keep_alive_s: a request in line is told that it still waits, this often.
        embed_in_truncate: cut long embedding inputs at the context length.
        adapters: LoRA adapters by the further model names that they answer under.
        drain_s: what runs may take so long to finish when the worker is asked to end.
    """

    model_names: list[str]
    worker_address: str
    controller_address: str | None = None
    controller_token: str = ""
    limit_worker_concurrency: int | None = None
    queue_limit: int = 512
    stream_interval: int = 2
    keep_alive_s: float = 15.0
    embed_in_truncate: bool = False
    adapters: Mapping[str, ServedAdapter] = field(default_factory=dict)
    drain_s: float = DRAIN_S
    pace: Pace = field(default_factory=lambda: Pace(heart_beat_s=WORKER_HEART_BEAT_INTERVAL))
