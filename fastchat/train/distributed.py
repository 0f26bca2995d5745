"""A run on several processes: what goes together, how DeepSpeed starts, how a process ends.

Knows nothing of models or data. What imports torch says so.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastchat.errors import SettingsError
from fastchat.train.deepspeed_config import zero_stage

_BEST = "load_best_model_at_end"
_WHOLE_ONLY = ("adafactor", "bnb", "8bit", "4bit")
"""Optimizers that compute over whole weights, as parts of their names."""


def process_count(environment: Mapping[str, str]) -> int:
    """The processes of this run, as torchrun and its like tell each of them."""
    return int(environment.get("WORLD_SIZE", "1"))


def check_combination(values: Mapping[str, Any], processes: int) -> None:
    """Refuses training arguments that no engine can follow together.

    Args:
        values: training arguments by name; `deepspeed` as a map.
        processes: how many the run has.

    Raises:
        SettingsError: says which, and what to use instead.
    """
    deepspeed, fsdp = bool(values.get("deepspeed")), bool(values.get("fsdp"))
    if deepspeed and fsdp:
        raise SettingsError(
            "--deepspeed and --fsdp are given together; each spreads the model in its own way.",
            hint="Give one of them: ZeRO-3 and FSDP2 need the same memory.",
            param="fsdp",
        )
    if fsdp and processes == 1:
        raise SettingsError(
            "--fsdp spreads a model over several processes, and this run has one.",
            hint="Start it with torchrun --nproc_per_node=N, or leave --fsdp out.",
            param="fsdp",
        )
    optimizer = str(values.get("optim", ""))
    if fsdp and any(word in optimizer for word in _WHOLE_ONLY):
        raise SettingsError(
            f"--optim {optimizer} does not work with --fsdp: it cannot update a part of a weight.",
            hint="Give --optim adamw_torch, or --deepspeed with ZeRO-3 in place of --fsdp.",
            param="optim",
        )
    if (deepspeed or fsdp) and values.get("save_only_model") and values.get(_BEST):
        raise SettingsError(
            f"--save_only_model leaves out what --{_BEST} reads with"
            f" --{'fsdp' if fsdp else 'deepspeed'}.",
            hint="Give one of the two; --save_total_limit 1 keeps checkpoints few.",
            param="save_only_model",
        )
    if processes > 1 and values.get("save_on_each_node"):
        raise SettingsError(
            "--save_on_each_node does not work: weights are written by the first process only.",
            hint="Give --output_dir a folder that all nodes share.",
            param="save_on_each_node",
        )
    if zero_stage(values.get("deepspeed")) == 3 and values.get("auto_find_batch_size"):
        raise SettingsError(
            "--auto_find_batch_size does not work with ZeRO-3.",
            hint="Give --per_device_train_batch_size; python -m fastchat.train.plan suggests one.",
            param="auto_find_batch_size",
        )


def start_deepspeed(args: Any) -> None:
    """Brings DeepSpeed's own communication up; before a model is loaded. Imports torch.

    Without this, DeepSpeed counts one process where it loads a model for ZeRO-3 on the
    CPU, and looks for MPI where no launcher was used.

    Args:
        args: `TrainingArguments`; nothing is done where they name no DeepSpeed settings.
    """
    if not args.deepspeed:
        return
    import deepspeed
    from torch import distributed
    from torch._C._distributed_c10d import HashStore

    backend = None
    if args.device.type == "cpu":
        backend = "gloo"
        # Compiled at the first start and used for inference only; the lock of a run that is
        # killed while it compiles would hold up every later one.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not distributed.is_initialized() and process_count(os.environ) == 1:
        distributed.init_process_group(backend or "nccl", store=HashStore(), rank=0, world_size=1)
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def check_agreement(checkpoint: Path | None, processes: int) -> None:
    """Checks that all processes go on from the same checkpoint. Imports torch.

    Args:
        checkpoint: the one found by this process; None where it found none.
        processes: how many the run has.

    Raises:
        SettingsError: on every process alike, if they found different ones.
    """
    if processes == 1:
        return
    from torch import distributed

    found: list[str | None] = [None] * processes
    distributed.all_gather_object(found, checkpoint and checkpoint.name)
    if len(set(found)) > 1:
        listed = ", ".join(f"{name or 'none'} on process {rank}" for rank, name in enumerate(found))
        raise SettingsError(
            f"The processes find different checkpoints to go on from: {listed}.",
            hint="Give --output_dir a folder that all nodes share, or --resume_from_checkpoint"
            " False to start anew.",
            param="output_dir",
        )


def end_process(status: int) -> None:
    """Ends this process where DeepSpeed runs in it; returns otherwise.

    Threads that DeepSpeed leaves behind abort the interpreter's own end at times, after
    all is saved, and a launcher would report the run as failed.

    Args:
        status: the exit status.
    """
    communication = sys.modules.get("deepspeed.comm.comm")
    if communication is None or not communication.is_initialized():
        return
    atexit._run_exitfuncs()  # noqa: SLF001  (trackers send what they still hold)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
