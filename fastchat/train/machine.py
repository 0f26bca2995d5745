"""Fits training arguments to the machine they are to run on; pure but for `look`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which settings can be used.

    Attributes:
        accelerator: there is a GPU or the like.
        tf32: it has TF32 matrix products.
        bf16: it computes in bfloat16.
    """

    accelerator: bool
    tf32: bool
    bf16: bool


def look() -> Machine:
    """The machine that this runs on. Imports torch."""
    import torch
    from transformers.utils import is_torch_bf16_gpu_available
    from transformers.utils.import_utils import is_torch_tf32_available

    return Machine(
        accelerator=torch.accelerator.is_available(),
        tf32=is_torch_tf32_available(),
        bf16=is_torch_bf16_gpu_available(),
    )


def fit_to(machine: Machine, values: dict[str, Any]) -> list[str]:
    """Changes training arguments that the machine cannot follow; returns notes for the user.

    Args:
        machine: what there is.
        values: training arguments by name; changed.

    Raises:
        SettingsError: a setting cannot be followed, and doing without it would mislead.
    """
    notes = []
    if not machine.accelerator:
        values["use_cpu"] = True
    on_cpu = bool(values.get("use_cpu"))
    if values.get("tf32") and (on_cpu or not machine.tf32):
        del values["tf32"]
        notes.append("--tf32 has no effect: there is no GPU with TF32 (Ampere or newer) here.")
    if on_cpu:
        notes += _fit_to_cpu(values)
    elif values.get("bf16") and not machine.bf16:
        del values["bf16"]
        notes.append(
            "--bf16 has no effect: this GPU does not compute in bfloat16. The run computes in"
            " float32; --fp16 True is faster here."
        )
    return notes


def use_one_gpu(args: Any) -> list[str]:
    """Has a process train on one GPU, however many it sees; returns notes for the user.

    The Trainer would spread each batch over all that it sees (`DataParallel`), which a single
    row of many conversations cannot be.

    Args:
        args: `TrainingArguments`; changed.
    """
    seen = args.n_gpu
    if seen <= 1:
        return []
    args._n_gpu = 1  # noqa: SLF001  (the Trainer sets it the same way)
    instead = f"start the same command with torchrun --nproc_per_node={seen} in place of python"
    return [f"Of {seen} visible GPUs one is used, {args.device}. To use all, {instead}."]


def _fit_to_cpu(values: dict[str, Any]) -> list[str]:
    for name, instead in (
        ("fp16", "Give --bf16 True, or neither for float32."),
        ("flash_attn", "Leave it out: torch's own attention is used."),
    ):
        if values.get(name):
            raise SettingsError(
                f"--{name} does not work on the CPU, and there is no GPU in use.",
                hint=instead,
                param=name,
            )
    if not values.get("bf16"):
        return []
    note = "weights stay float32 and computing is autocast to bfloat16, which is seldom faster"
    return [f"--bf16 on the CPU: {note}."]
