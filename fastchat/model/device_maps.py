"""Which GPU gets which layers of a model, so that all of them are on GPUs.

Looks at sizes only: no weight is read. Whole decoder layers stay together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate.utils import convert_file_size_to_int, get_balanced_memory, infer_auto_device_map
from transformers import AutoConfig, AutoModelForCausalLM

from fastchat.errors import SettingsError

_GIB = 2**30


def map_layers(folder: str, dtype: torch.dtype | None, memory: Mapping[int, int]) -> dict[str, int]:
    """Spreads a model over GPUs, about equally much on each.

    Args:
        folder: of the model.
        dtype: of the weights; the one that config.json names if None.
        memory: bytes for weights on each GPU, by its number.

    Returns:
        the GPU of each part of the network, by the part's name.

    Raises:
        SettingsError: the GPUs have too little room.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    stored = dtype or getattr(config, "dtype", None) or torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    whole = {"no_split_module_classes": list(model._no_split_modules or ()), "dtype": stored}
    even = get_balanced_memory(model, dict(memory), **whole)
    found = infer_auto_device_map(model, even, **whole)
    if not set(found.values()) <= memory.keys():
        needed = sum(weight.numel() for weight in model.parameters()) * stored.itemsize
        raise SettingsError(
            f"The weights take {needed / _GIB:.1f} GiB, and not all layers find room on"
            f" {len(memory)} GPUs with {sum(memory.values()) / _GIB:.1f} GiB for weights.",
            hint="Raise --num-gpus or --max-gpu-memory.",
            param="--num-gpus",
        )
    return found


def bytes_of(max_gpu_memory: str) -> int:
    """What --max-gpu-memory means, such as 13GiB.

    Raises:
        SettingsError: it is no size.
    """
    try:
        size: int = convert_file_size_to_int(max_gpu_memory)
    except ValueError:
        size = 0
    if size <= 0:
        raise SettingsError(
            f"--max-gpu-memory is {max_gpu_memory!r}; a size such as 13GiB is needed.",
            param="--max-gpu-memory",
        )
    return size
