"""How many blocks a cache may have."""

from __future__ import annotations

import os

import torch

from fastchat.errors import SettingsError
from fastchat.model.configuration_yuan import YuanConfig

_CPU_SHARE, _GPU_SHARE = 0.5, 0.85
"""Of the free memory, for the cache; the rest is for what a step computes, and for others."""


def cache_blocks(
    config: YuanConfig,
    *,
    wanted_tokens: int | None,
    running: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Blocks of the cache: as many as asked for, else as free memory and use suggest.

    Args:
        wanted_tokens: tokens to have room for; None is up to `running` whole contexts, in
            a share of the memory that is free now.
        running: requests at once.
        block_size: tokens a block.
        dtype: of keys and values.
        device: where they will lie.

    Raises:
        SettingsError: fewer tokens were asked for, or fit, than a block holds.
    """
    if wanted_tokens is not None:
        if wanted_tokens < block_size:
            raise SettingsError(
                f"--kv-cache-tokens is {wanted_tokens}; at least {block_size} are needed."
            )
        return wanted_tokens // block_size
    free, share = _free_bytes(device)
    size = dtype.itemsize * block_bytes_per_item(config, block_size)
    found = min(
        running * -(-config.max_position_embeddings // block_size), int(free * share) // size
    )
    if found < 1:
        raise SettingsError(
            f"{free / 2**20:.0f} MiB of memory are free, too little for keys and values.",
            hint="Use fewer bits a weight (--quantization), or free some memory.",
        )
    return found


def block_bytes_per_item(config: YuanConfig, block_size: int) -> int:
    """Numbers that a block holds: keys and values of its tokens, in all layers."""
    return 2 * config.hidden_size * config.num_hidden_layers * block_size


def _free_bytes(device: torch.device) -> tuple[int, float]:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0], _GPU_SHARE
    return _available_ram(), _CPU_SHARE


def _available_ram() -> int:
    """What can be used without swapping, within this process's control group too."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123
            values = dict(line.split(":", 1) for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return found
