"""What an engine can be told, beside which model it serves. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fastchat.engine.batching.scheduler import Limits

Quantization = Literal["int8", "int4"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of the engine for Yuan2.

    Attributes:
        quantization: hold matrices in fewer bits; None keeps them in the weights' type.
        cache_tokens: tokens that the cache has room for, all requests together; None takes
            a share of the memory that is free when the model is loaded.
        limits: of steps and of the queue.
        drafting: guess tokens from the text so far, and check several in one step.
        threads: that compute on a CPU; None is one a core.
        native: use the project's own kernels on a CPU, where they can be compiled.
        batched: compute all requests together; else each by itself, with the network of
            `fastchat.model`.
    """

    quantization: Quantization | None = None
    cache_tokens: int | None = None
    limits: Limits = field(default_factory=Limits)
    drafting: bool = True
    threads: int | None = None
    native: bool = True
    batched: bool = True
