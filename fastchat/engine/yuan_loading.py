"""Builds the continuous engine from a Yuan2 checkpoint, without a model of transformers between.

Weights are read from the mapped files matrix by matrix, into the form that they are
computed with; no second copy of the model is ever in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from fastchat.engine.answer import Vocabulary
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.core import EngineCore
from fastchat.engine.continuous import ContinuousEngine
from fastchat.engine.lookup import Drafter
from fastchat.engine.native.availability import unavailable_reason
from fastchat.engine.native.kernels import Kernels
from fastchat.engine.native.library import ThreadPool
from fastchat.engine.native.packed import PackedKind
from fastchat.engine.network.adapters import merged, read_adapter
from fastchat.engine.network.bnb_ops import BitsAndBytesOps
from fastchat.engine.network.memory import cache_blocks
from fastchat.engine.network.native_ops import NativeOps
from fastchat.engine.network.torch_ops import TorchOps
from fastchat.engine.network.yuan import Network, Ops
from fastchat.engine.sampling import BatchSampler
from fastchat.engine.settings import EngineSettings
from fastchat.engine.structured import Grammars
from fastchat.errors import CheckpointError, FastChatError, SettingsError
from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.file_pages import forget_pages
from fastchat.model.published_weights import refuse_other_weights
from fastchat.model.weight_files import WeightFiles

BLOCK_SIZE = 16
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_engine(
    folder: str,
    tokenizer: Any,
    vocabulary: Callable[[int], Vocabulary],
    *,
    device: torch.device,
    dtype: str | None,
    settings: EngineSettings,
    adapter: str | None = None,
) -> ContinuousEngine:
    """Loads a checkpoint into an engine.

    Args:
        folder: of a Yuan2 checkpoint.
        tokenizer: of the model.
        vocabulary: from the number of token ids to what engines know of the model's text.
        device: to compute on.
        dtype: of the weights; the checkpoint's own if None.
        settings: of the engine.
        adapter: folder of a LoRA adapter to merge into the weights.

    Raises:
        CheckpointError: weights that are missing, damaged or of another network.
        SettingsError: settings that cannot be used on this device.
    """
    config = config_of(folder)
    with WeightFiles(folder) as weights:
        refuse_other_weights(weights, config)
        held = _dtype(dtype, weights)
        ops, pool = _ops(device, held, settings)
        limits = settings.limits
        blocks = cache_blocks(
            config,
            wanted_tokens=settings.cache_tokens,
            running=limits.running,
            block_size=BLOCK_SIZE,
            dtype=held,
            device=device,
        )
        scratch = limits.draft_rows * (1 + limits.draft_tokens)
        read = _reader(weights)
        network = Network(
            config,
            read if adapter is None else merged(read, read_adapter(adapter, folder)),
            ops,
            blocks=blocks,
            block_size=BLOCK_SIZE,
            scratch=scratch,
        )
    known = vocabulary(config.vocab_size)
    core = EngineCore(
        network,
        BlockPool(blocks, BLOCK_SIZE),
        BatchSampler(config.vocab_size, pool),
        known,
        limits,
    )
    return ContinuousEngine(
        core,
        known,
        Grammars(tokenizer, config.vocab_size, sorted(known.end_ids)),
        context_length=min(config.max_position_embeddings, blocks * BLOCK_SIZE),
        read_adapter=partial(read_adapter, base=folder),
        drafter=Drafter if settings.drafting else None,
    )


def config_of(folder: str) -> YuanConfig:
    """A checkpoint's config.

    Raises:
        CheckpointError: it does not describe a Yuan2 network.
    """
    try:
        return YuanConfig.from_pretrained(folder)
    except FastChatError:
        raise
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointError(
            f"config.json in {folder} does not describe a Yuan2 network: {error}",
            hint="Copy the published checkpoint's config.json.",
        ) from error


def _ops(
    device: torch.device, dtype: torch.dtype, settings: EngineSettings
) -> tuple[Ops, ThreadPool | None]:
    if device.type == "cpu" and settings.native and unavailable_reason() is None:
        # Half floats have no kernel of their own; in float32 they stay what they are.
        plain: PackedKind = "bfloat16" if dtype is torch.bfloat16 else "float32"
        kernels = Kernels(settings.threads or len(os.sched_getaffinity(0)))
        return NativeOps(kernels, settings.quantization or plain, _DTYPES[plain]), kernels.pool
    if settings.quantization is None:
        return TorchOps(device, dtype), None
    if device.type != "cuda":
        raise SettingsError(
            f"{settings.quantization} weights need a GPU, or a CPU with a C++ compiler; the device"
            f" is {device.type}.",
            hint="Install g++, or leave --quantization and --load-8bit out.",
        )
    return BitsAndBytesOps(device, dtype, settings.quantization), None


def _dtype(name: str | None, weights: WeightFiles) -> torch.dtype:
    if name is None:
        return weights.read("model.norm.weight").dtype
    if name not in _DTYPES:
        raise SettingsError(f"--dtype is {name!r}; allowed are {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def _reader(weights: WeightFiles) -> Callable[[str], Tensor]:
    """Reads weights layer by layer; the memory behind those of the layer before is given back."""
    handed_out: list[Tensor] = []
    part = ""

    def read(name: str) -> Tensor:
        nonlocal part
        this = ".".join(name.split(".")[:3])  # a layer, or what stands alone
        if this != part:
            for weight in handed_out:
                forget_pages(weight)
            handed_out.clear()
        part = this
        handed_out.append(weights.read(name))
        return handed_out[-1]

    return read
