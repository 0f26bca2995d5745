"""LoRA adapters beside the base's weights: many at once, each row of a step with its own.

The two small matrices of all loaded adapters stand side by side, with the adapter that each
rank belongs to, so that rows of any mixture are served together.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
Knows peft's files. Shapes: T rows, R ranks of all adapters together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from fastchat.errors import CheckpointError
from fastchat.model.adapter_fit import check_adapter
from fastchat.model.model_folder import read_json
from fastchat.model.weight_files import WeightFiles

_PREFIX = "base_model.model.model.layers."
_UNSUPPORTED = ("use_dora", "modules_to_save", "trainable_token_indices", "layer_replication")


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one matrix (out, in): up @ down.

    Attributes:
        down: (r, in) float32.
        up: (out, r) float32, the adapter's scale in it.
    """

    down: Tensor
    up: Tensor


Adapter = Mapping[tuple[int, str], LowRank]
"""What one adapter adds, by layer and published name of the module, e.g. (0, "mlp.up_proj")."""


def read_adapter(folder: str | Path, base: str | Path) -> Adapter:
    """Reads an adapter as peft saves it.

    Args:
        folder: of the adapter.
        base: folder of the model that it is for.

    Raises:
        CheckpointError: it is not there, is damaged, is more than plain LoRA, or is another
            model's.
    """
    config = read_json(folder, "adapter_config.json")
    if config is None:
        raise CheckpointError(f"{folder} holds no adapter: there is no adapter_config.json.")
    extra = beyond_lora(config)
    if extra:
        raise CheckpointError(
            f"The adapter {folder} has {', '.join(extra)}; only plain LoRA is served beside its"
            " base.",
            hint="Merge it: python -m fastchat.model.apply_lora.",
        )
    with WeightFiles(base) as weights:
        check_adapter(Path(folder), weights)
    found: dict[tuple[int, str], LowRank] = {}
    with WeightFiles(folder) as files:
        for name in files.names:
            module, lora, _ = name.removeprefix(_PREFIX).partition(".lora_A.weight")
            if lora and name.startswith(_PREFIX):
                number, _, module = module.partition(".")
                down = files.read(name).float()
                up = files.read(name.replace("lora_A", "lora_B")).float()
                scale = _scale(config, f"{number}.{module}", down.shape[0])
                found[int(number), module] = LowRank(flat(down), flat(up) * scale)
    if not found:
        raise CheckpointError(f"The adapter {folder} holds no matrices of Yuan2's layers.")
    return found


def beyond_lora(config: Mapping[str, Any]) -> list[str]:
    """What makes an adapter more than plain LoRA, by its adapter_config.json."""
    extra = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        extra.append(f"bias: {config['bias']}")
    if config.get("peft_type") != "LORA":
        extra.append(f"type {config.get('peft_type')}")
    return extra


def flat(weight: Tensor) -> Tensor:
    """(out, in), also of a convolution over two tokens: there (out, channel, tap, 1)."""
    return weight if weight.dim() == 2 else rearrange(weight, "o c tap 1 -> o (tap c)")


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product is multiplied by; patterns name modules with other values."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module.endswith(pattern):
            alpha = value
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def merged(read: Callable[[str], Tensor], adapter: Adapter) -> Callable[[str], Tensor]:
    """Reads a model's weights with an adapter merged into them, in the type that they have."""

    def read_merged(name: str) -> Tensor:
        weight = read(name)
        number, _, module = (
            name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
        )
        added = adapter.get((int(number), module)) if number.isdecimal() else None
        if added is None:
            return weight
        product = added.up @ added.down
        if weight.dim() > 2:
            product = rearrange(product, "o (tap c) -> o c tap 1", tap=2)
        return (weight.float() + product).to(weight.dtype)

    return read_merged


@dataclass(frozen=True, slots=True)
class Stack:
    """The low-rank parts of all adapters for one of the network's matrices.

    Attributes:
        down: (R, in) float32.
        up: (out, R) float32.
        owners: (R,) int64 which adapter each rank belongs to, rising.
    """

    down: Tensor
    up: Tensor
    owners: Tensor


Part = tuple[str, int]
"""A published module, and its number of outputs, that is part of one of the network's matrices."""


def stack(
    adapters: Mapping[int, Adapter],
    layer: int,
    parts: Iterable[Part],
    row_order: Tensor | None = None,
) -> Stack | None:
    """Puts what adapters add to one of the network's matrices side by side.

    Args:
        adapters: by number.
        layer: number of the layer.
        parts: the published modules whose outputs, one behind the other, make up the matrix.
        row_order: of the network's matrix.

    Returns:
        None if no adapter adds anything.
    """
    downs: list[Tensor] = []
    ups: list[Tensor] = []
    owners: list[int] = []
    sizes = list(parts)
    total = sum(size for _, size in sizes)
    for number, adapter in sorted(adapters.items()):
        offset = 0
        for module, size in sizes:
            found = adapter.get((layer, module))
            if found is not None:
                up = torch.zeros(total, found.up.shape[1])
                up[offset : offset + size] = found.up
                downs.append(found.down)
                ups.append(up)
                owners += [number] * found.up.shape[1]
            offset += size
    if not downs:
        return None
    up = torch.cat(ups, dim=1)
    return Stack(torch.cat(downs), up if row_order is None else up[row_order], torch.tensor(owners))
