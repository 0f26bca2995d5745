"""FSDP2: parameters spread over the processes, on the CPU as well.

Accelerate does the work, and the Trainer steers it. Left to itself accelerate would run
plain DDP on the CPU without a word, so it is told there that this is FSDP; and whatever
the device, the model is checked once it is wrapped. Imports accelerate and torch.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn

from fastchat.errors import TrainingError


def shard_on_cpu(accelerator: Any, plugin_args: dict[str, Any]) -> bool:
    """Has accelerate shard where it would not by itself: on the CPU, over gloo.

    Args:
        accelerator: just made, with nothing prepared yet; its state is changed.
        plugin_args: what its FSDP plugin is made of.

    Returns:
        Whether there was anything to do.
    """
    state = accelerator.state
    if state.distributed_type != DistributedType.MULTI_CPU:
        return False
    plugin = FullyShardedDataParallelPlugin(**plugin_args)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    state.fsdp_plugin = plugin
    # The two keep what they know apart, and each is asked.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return True


def check_sharded(model: nn.Module) -> None:
    """Checks that every trained parameter is spread over the processes.

    Raises:
        TrainingError: names the first that each process holds whole.
    """
    whole = next(
        (
            name
            for name, weight in model.named_parameters()
            if weight.requires_grad and not _is_shard(weight)
        ),
        None,
    )
    if whole is not None:
        raise TrainingError(
            f"--fsdp is given, but {whole} is not sharded: every process holds all of it.",
            hint="Use --deepspeed with ZeRO-3 instead, or neither if the model fits each device.",
        )


def _is_shard(weight: torch.Tensor) -> bool:
    from torch.distributed.tensor import DTensor, Shard

    return isinstance(weight, DTensor) and any(isinstance(p, Shard) for p in weight.placements)
