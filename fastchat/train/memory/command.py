"""The command line that runs a plan. Pure."""

from __future__ import annotations

import json
from typing import Any

from fastchat.train.memory.setup import Setup
from fastchat.train.memory.zero import deepspeed_settings, settings_file

_GPUS_A_MACHINE = 8


def training_flags(setup: Setup) -> dict[str, str]:
    """The trainer's flags that make a run what was planned."""
    spec = setup.spec
    flags = {
        "bf16": "True",
        "per_device_train_batch_size": str(setup.batch_size),
        "gradient_accumulation_steps": str(setup.accumulation),
        "model_max_length": str(spec.max_length),
        "gradient_checkpointing": str(setup.gradient_checkpointing),
    }
    if spec.mode != "full":
        flags |= {
            "lora_r": str(spec.lora_r),
            "lora_dropout": str(spec.lora_dropout),
            "lora_target_modules": " ".join(spec.targets),
            "q_lora": str(spec.mode == "qlora"),
        }
    settings = deepspeed_settings(setup.zero, setup.offload)
    if settings is not None:
        flags["deepspeed"] = settings_file(setup.zero, setup.offload) or _inline(settings)
    return flags


def command(setup: Setup) -> str:
    """A shell command; MODEL, DATA and OUTPUT stand for paths where they are not known."""
    spec = setup.spec
    entry = "train_mem.py" if spec.mode == "full" else "train_lora.py"
    model = spec.shape.folder or "MODEL"
    lines = [
        f"{_launcher(spec.gpus)} fastchat/train/{entry}",
        f"--model_name_or_path {model} --data_path DATA --output_dir OUTPUT",
        *(f"--{name} {value}" for name, value in training_flags(setup).items()),
    ]
    return " \\\n    ".join(lines)


def _launcher(gpus: int) -> str:
    if gpus == 1:
        return "python"
    if gpus > _GPUS_A_MACHINE and gpus % _GPUS_A_MACHINE == 0:
        machines = f"--nnodes={gpus // _GPUS_A_MACHINE} --nproc_per_node={_GPUS_A_MACHINE}"
        return f"torchrun {machines} --rdzv_backend=c10d --rdzv_endpoint=HOST:20001"
    return f"torchrun --nproc_per_node={gpus} --master_port=20001"


def _inline(settings: dict[str, Any]) -> str:
    """The settings themselves, which the trainer takes in place of a file."""
    return f"'{json.dumps(settings, separators=(',', ':'))}'"
