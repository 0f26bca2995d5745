"""Settings meet the machine: followed, left out with a note, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastchat.errors import SettingsError
from fastchat.train.machine import Machine, fit_to, use_one_gpu
from fastchat.train.training_arguments import TrainingArguments

CPU = Machine(accelerator=False, tf32=False, bf16=False)
OLD_GPU = Machine(accelerator=True, tf32=False, bf16=False)
GPU = Machine(accelerator=True, tf32=True, bf16=True)


@pytest.mark.parametrize(
    ("machine", "given", "left", "notes"),
    [
        (CPU, {}, {"use_cpu": True}, []),
        (CPU, {"fsdp": True}, {"use_cpu": True, "fsdp": True}, []),
        (CPU, {"tf32": True}, {"use_cpu": True}, ["--tf32 has no effect"]),
        (CPU, {"tf32": False}, {"use_cpu": True, "tf32": False}, []),
        (CPU, {"bf16": True}, {"use_cpu": True, "bf16": True}, ["--bf16 on the CPU"]),
        (OLD_GPU, {"tf32": True, "fp16": True}, {"fp16": True}, ["--tf32 has no effect"]),
        (GPU, {"tf32": True, "bf16": True}, {"tf32": True, "bf16": True}, []),
        (OLD_GPU, {"bf16": True}, {}, ["--bf16 has no effect"]),
        (GPU, {"use_cpu": True, "tf32": True}, {"use_cpu": True}, ["--tf32 has no effect"]),
    ],
)
def test_what_the_machine_cannot_do_is_left_out(
    machine: Machine, given: dict[str, Any], left: dict[str, Any], notes: list[str]
) -> None:
    values = dict(given)
    said = fit_to(machine, values)
    assert values == left
    assert len(said) == len(notes)
    assert all(text.startswith(start) for text, start in zip(said, notes, strict=True))


@pytest.mark.parametrize(
    ("machine", "given", "complaint"),
    [
        (CPU, {"fp16": True}, "--fp16 does not work on the CPU.*--bf16 True"),
        (GPU, {"fp16": True, "use_cpu": True}, "--fp16 does not work on the CPU"),
        (CPU, {"flash_attn": True}, "--flash_attn does not work on the CPU"),
    ],
)
def test_what_would_mislead_is_refused(
    machine: Machine, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        fit_to(machine, dict(given))


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    assert use_one_gpu(args) == []
    args._n_gpu = 8  # what the Trainer would make a DataParallel of
    (note,) = use_one_gpu(args)
    assert "torchrun --nproc_per_node=8" in note
    assert args.n_gpu == 1
    assert args.train_batch_size == 4
