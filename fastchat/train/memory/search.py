"""Finds the fastest way of running that fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fastchat.train.memory.parts import Part, host_memory, memory_parts
from fastchat.train.memory.setup import Offload, PlanSpec, Setup, Stage

GIB = 2**30

MARGIN = 0.05
"""Share of a GPU left free: the allocator loses some to rounding and fragments."""

BUSY_TOKENS = 4096
"""Tokens of a micro-batch that are plenty to keep a GPU's matrix units busy."""

_MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one way of running needs.

    Attributes:
        setup: the way of running.
        parts: memory of one GPU by part.
        host: bytes of the machines' memory taken by offloading, in all.
    """

    setup: Setup
    parts: list[Part]
    host: float

    @property
    def total(self) -> float:
        """Bytes of one GPU."""
        return sum(part.size for part in self.parts)

    @property
    def largest(self) -> Part:
        """The part that takes most."""
        return max(self.parts, key=lambda part: part.size)

    @property
    def fits(self) -> bool:
        """Whether it fits the spec's GPUs, with a margin."""
        return self.total <= self.setup.spec.memory * GIB * (1 - MARGIN)


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome.

    Attributes:
        best: the fastest that fits, or what needs least if nothing fits.
        rejected: other ones that do not fit, in order of speed, each at the smallest batch that
            was tried.
        gpus_needed: where nothing fits: how many GPUs of this memory would do, if any.
    """

    best: Estimate
    rejected: list[Estimate]
    gpus_needed: int | None = None

    @property
    def fits(self) -> bool:
        """Whether anything fits."""
        return self.best.fits


def plan(spec: PlanSpec) -> Plan:
    """The fastest way to run what a spec asks for, with whatever it leaves open."""
    tried: list[Estimate] = []
    for setup in candidates(spec):
        found = estimate(setup)
        if found.fits:
            return Plan(found, _smallest(tried))
        tried.append(found)
    least = min(tried, key=lambda item: item.total)
    others = [item for item in _smallest(tried) if item is not least]
    return Plan(least, others, _gpus_needed(spec))


def _smallest(tried: Iterable[Estimate]) -> list[Estimate]:
    ways = {}
    for item in tried:  # batches get smaller, so the last one of a kind stays
        setup = item.setup
        ways[setup.zero, setup.offload, setup.gradient_checkpointing] = item
    return list(ways.values())


def estimate(setup: Setup) -> Estimate:
    """What one way of running needs."""
    return Estimate(setup, memory_parts(setup), host_memory(setup))


def candidates(spec: PlanSpec) -> Iterator[Setup]:
    """Ways of running, the fastest first.

    Offloading moves every step over the bus, so it comes last. A full micro-batch comes
    before a lower stage: what a stage sends is sent once a micro-batch. Of the stages, 0 to 2
    send equally much and ZeRO-3 half as much again (Rajbhandari et al., section 7), while
    recomputing activations costs a third more arithmetic.
    """
    for offload, ways in _ways(spec):
        for batch_size in batch_sizes(spec):
            for zero, recompute in ways:
                yield Setup(
                    spec=spec,
                    zero=zero,
                    offload=offload,
                    batch_size=batch_size,
                    gradient_checkpointing=recompute,
                )


def batch_sizes(spec: PlanSpec) -> list[int]:
    """Conversations a micro-batch to try, the most first."""
    if spec.batch_size is not None:
        return [spec.batch_size]
    largest = max(1, min(BUSY_TOKENS // spec.mean, spec.global_batch_size // spec.gpus))
    return [2**power for power in reversed(range(largest.bit_length()))]


def _ways(spec: PlanSpec) -> Iterator[tuple[Offload, list[tuple[Stage, bool]]]]:
    """Offloading, and with it (stage, gradient checkpointing), each in order of speed."""
    recompute = [False, True]
    if spec.gradient_checkpointing is not None:
        recompute = [spec.gradient_checkpointing]
    offloads: Iterable[Offload] = ("none", "optimizer", "all")
    for offload in offloads:
        if spec.offload not in (None, offload):
            continue
        stages = _stages(spec, offload)
        low = [stage for stage in stages if stage < 3]
        ways = [(stage, again) for again in recompute for stage in low]
        ways += [(stage, again) for stage in stages if stage == 3 for again in recompute]
        if ways:
            yield offload, ways


def _stages(spec: PlanSpec, offload: Offload) -> list[Stage]:
    """Stages worth trying; all that are possible where the spec names one."""
    alone = spec.gpus == 1
    stages: list[Stage]
    if offload == "all":
        stages = [] if spec.mode == "qlora" else [3]
    elif offload == "optimizer":
        # An adapter's states are too small to be worth it, unless it is asked for.
        wanted = spec.mode == "full" or spec.offload == "optimizer"
        stages = [2, 3] if wanted and spec.mode != "qlora" else []
    elif spec.mode == "qlora" or alone:
        stages = [0]
    elif spec.mode == "lora":
        stages = [0, 3]
    else:
        stages = [0, 1, 2, 3]
    if spec.zero is None:
        return stages
    if spec.offload is None and spec.zero not in stages and offload != "none":
        return []
    return [spec.zero]


def _gpus_needed(spec: PlanSpec) -> int | None:
    gpus = spec.gpus * 2
    while gpus <= _MOST_GPUS:
        more = replace(spec, gpus=gpus)
        if any(estimate(setup).fits for setup in candidates(more) if setup.offload == "none"):
            return gpus
        gpus *= 2
    return None
