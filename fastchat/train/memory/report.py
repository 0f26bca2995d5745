"""A plan as text and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastchat.train.memory.command import command, training_flags
from fastchat.train.memory.search import GIB, MARGIN, Estimate, Plan
from fastchat.train.memory.setup import Setup
from fastchat.train.memory.zero import deepspeed_settings


def as_text(plan: Plan) -> str:
    """What the planner prints."""
    return "\n".join(_lines(plan))


def as_json(plan: Plan) -> dict[str, Any]:
    """The same for programs; sizes in bytes."""
    setup = plan.best.setup
    return {
        "model": setup.spec.shape.name,
        "mode": setup.spec.mode,
        "gpus": setup.spec.gpus,
        "memory_bytes": setup.spec.memory * GIB,
        "fits": plan.fits,
        "gpus_needed": plan.gpus_needed,
        "upstream": setup.spec.upstream,
        **_estimate(plan.best),
        "parts": [
            {"name": part.name, "bytes": part.size, "note": part.note} for part in plan.best.parts
        ],
        "flags": training_flags(setup),
        "deepspeed": deepspeed_settings(setup.zero, setup.offload),
        "command": command(setup),
        "rejected": [_estimate(item) for item in plan.rejected],
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    setup = estimate.setup
    return {
        "zero": setup.zero,
        "offload": setup.offload,
        "batch_size": setup.batch_size,
        "gradient_accumulation_steps": setup.accumulation,
        "gradient_checkpointing": setup.gradient_checkpointing,
        "tokens": setup.tokens,
        "total_bytes": estimate.total,
        "host_bytes": estimate.host,
    }


def _lines(plan: Plan) -> Iterator[str]:
    best, setup = plan.best, plan.best.setup
    spec = setup.spec
    yield _title(setup)
    yield ""
    width = max(len(part.name) for part in best.parts)
    for part in best.parts:
        yield f"  {part.name:<{width}}  {part.size / GIB:8.2f} GiB  {part.note}".rstrip()
    yield f"  {'in all':<{width}}  {best.total / GIB:8.2f} GiB  of {spec.memory:g} a GPU"
    if best.host:
        yield f"  {'offloaded':<{width}}  {best.host / GIB:8.2f} GiB  of the machines' memory"
    yield ""
    yield from _verdict(plan)
    if plan.fits and not spec.upstream:
        yield ""
        yield command(setup)


def _title(setup: Setup) -> str:
    spec = setup.spec
    kind = {"full": "all weights", "lora": "LoRA", "qlora": "QLoRA"}[spec.mode]
    size = f"{spec.shape.parameters / 1e9:.2f} billion parameters"
    gpus = f"{spec.gpus} GPU{'s' if spec.gpus > 1 else ''} of {spec.memory:g} GiB"
    way = " (as FastChat trains: padded rows, all logits)" if spec.upstream else ""
    return f"Yuan2 {spec.shape.name}, {size}; {kind} on {gpus}{way}\n{setup.label}"


def _verdict(plan: Plan) -> Iterator[str]:
    best, spec = plan.best, plan.best.setup.spec
    if plan.fits:
        host = (
            f", if the machines have {best.host / GIB:.0f} GiB to offload to" if best.host else ""
        )
        yield f"fits, with {MARGIN:.0%} of each GPU left free{host}"
    else:
        yield f"does not fit: with {MARGIN:.0%} left free, nothing does, and this needs least"
        if plan.gpus_needed:
            yield f"{plan.gpus_needed} GPUs of {spec.memory:g} GiB would do"
        smaller = {"full": "--mode lora", "lora": "--mode qlora", "qlora": "a smaller model"}
        yield f"{smaller[spec.mode]} needs less"
    if plan.rejected:
        yield ""
        yield "faster, but too large:" if plan.fits else "no better:"
        for item in plan.rejected:
            largest = f"{item.largest.name} {item.largest.size / GIB:.1f}"
            yield f"  {item.total / GIB:8.2f} GiB  {item.setup.label}; {largest}"
