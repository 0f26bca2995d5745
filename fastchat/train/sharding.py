"""FSDP2: parameters spread over the processes, on the CPU as well.

Accelerate does the work, and the Trainer steers it. Left to itself accelerate would run
plain DDP on the CPU without a word, so it is told there that this is FSDP; and whatever
the device, the model is checked once it is wrapped. Imports accelerate and torch.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from fastchat.errors import SettingsError, TrainingError

logger = logging.getLogger(__name__)

_LAYERS = "transformer_cls_names_to_wrap"


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
    if plugin_args.get("cpu_offload"):
        logger.warning("--fsdp offload has no effect: the weights are in the CPU's memory anyway")
    plugin = FullyShardedDataParallelPlugin(**(plugin_args | {"cpu_offload": False}))
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    state.fsdp_plugin = plugin
    # The two keep what they know apart, and each is asked.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return True


def keep_sums_exact(plugin: Any) -> None:
    """Has gradients summed in float32 over the processes, and the loss left as it is computed.

    Accelerate's own choice is the format that is computed in: a loss in bfloat16 has three
    digits, in which an evaluation cannot tell one model from the next.

    Args:
        plugin: accelerate's FSDP plugin; changed, if it mixes formats.
    """
    policy = plugin.mixed_precision_policy
    if policy is not None:
        plugin.mixed_precision_policy = replace(
            policy, reduce_dtype=torch.float32, output_dtype=None
        )


def check_layers(model: nn.Module, plugin_args: dict[str, Any]) -> None:
    """Checks that a model has the layers that it is to be spread by.

    Args:
        model: not wrapped yet.
        plugin_args: what accelerate's FSDP plugin is made of.

    Raises:
        SettingsError: names one that is not there.
    """
    asked = [name for name in (plugin_args.get(_LAYERS) or "").split(",") if name]
    present = {type(module).__name__ for module in model.modules()}
    for name in asked:
        if name not in present:
            layers = sorted(n for n in present if n.endswith(("Layer", "Block")))
            raise SettingsError(
                f"--fsdp_transformer_layer_cls_to_wrap names {name}, which this model does not"
                f" have; it has {', '.join(layers) or 'no layers'}.",
                hint="Leave the flag out to have the model's own layers found.",
                param="fsdp_transformer_layer_cls_to_wrap",
            )


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


def _is_shard(weight: Tensor) -> bool:
    return isinstance(weight, DTensor) and any(isinstance(p, Shard) for p in weight.placements)
