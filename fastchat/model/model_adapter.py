"""Finds how a model folder is loaded and prompted, and loads it.

The model is chosen by its config.json, not by its folder's name. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import fastchat.model  # noqa: F401  (registers Yuan2 with transformers)
from fastchat.chat import ChatRenderer
from fastchat.conversation import Conversation
from fastchat.errors import SettingsError
from fastchat.model.base_adapter import BaseModelAdapter
from fastchat.model.model_folder import local_folder, read_json
from fastchat.model.model_yuan2 import Yuan2Adapter
from fastchat.model.peft_adapter import PeftModelAdapter, base_of
from fastchat.model_flags import add_model_args

if TYPE_CHECKING:
    import torch

__all__ = [
    "BaseModelAdapter",
    "add_model_args",
    "get_chat_renderer",
    "get_conversation_template",
    "get_model_adapter",
    "load_model",
    "register_model_adapter",
]

logger = logging.getLogger(__name__)

model_adapters: list[BaseModelAdapter] = []


def register_model_adapter(adapter: type[BaseModelAdapter] | BaseModelAdapter) -> None:
    """Adds an adapter; it is asked after those registered before it, and before the base one."""
    instance = adapter() if isinstance(adapter, type) else adapter
    last = len(model_adapters) - 1
    if last >= 0 and type(model_adapters[last]) is BaseModelAdapter:
        model_adapters.insert(last, instance)
    else:
        model_adapters.append(instance)


def get_model_adapter(model_path: str) -> BaseModelAdapter:
    """The first registered adapter that is for a model folder."""
    return next(adapter for adapter in model_adapters if adapter.match(str(model_path)))


def get_conversation_template(model_path: str) -> Conversation:
    """The conversation template of a model folder."""
    return get_model_adapter(model_path).get_default_conv_template(model_path)


def get_chat_renderer(tokenizer: Any, model_path: str) -> ChatRenderer:
    """What turns messages into a model's prompts, in serving and in training alike."""
    return get_model_adapter(model_path).get_chat_renderer(model_path, tokenizer)


def load_model(
    model_path: str,
    device: str = "auto",
    num_gpus: int = 1,
    max_gpu_memory: str | None = None,
    dtype: str | torch.dtype | None = None,
    load_8bit: bool = False,
    cpu_offloading: bool = False,
    revision: str = "main",
    debug: bool = False,
) -> Any:
    """Loads (model, tokenizer), ready to generate.

    Args:
        model_path: folder or hub id.
        device: "auto" is CUDA where there is one, else the CPU.
        num_gpus: spread the weights over this many GPUs.
        max_gpu_memory: weights per GPU at most, e.g. "13GiB".
        dtype: of the weights; the checkpoint's own if None.
        load_8bit: int8 weights (CUDA, bitsandbytes).
        cpu_offloading: accepted for old callers; has no effect.
        revision: hub revision.
        debug: log the network.

    Raises:
        CheckpointError: nothing readable there, or another network.
        SettingsError: a device that is not there, or options that do not go together.
    """
    import torch

    device = resolve_device(device)
    if cpu_offloading:
        logger.warning("cpu_offloading has no effect")
    options: dict[str, Any] = {"dtype": dtype or "auto"}
    if load_8bit:
        options["quantization_config"] = _int8(device)
        options["device_map"] = {"": device}
    folder = str(local_folder(model_path, revision=revision))
    if num_gpus > 1:
        memory = _memory_per_gpu(device, num_gpus, max_gpu_memory)
        held = torch.int8 if load_8bit else dtype
        options["device_map"] = _device_map(folder, held, memory)
    elif max_gpu_memory is not None:
        logger.warning("--max-gpu-memory has no effect without --num-gpus 2 or more")
    adapter = get_model_adapter(folder)
    logger.info("loading %s with %s", folder, type(adapter).__name__)
    model, tokenizer = adapter.load_model(folder, options)
    if "device_map" not in options:
        model.to(torch.device(device))
    if debug:
        logger.info("%s", model)
    return model.eval(), tokenizer


def generation_defaults(folder: str) -> dict[str, Any]:
    """Sampling values that a model folder's generation_config.json states, by the worker's names.

    Values that the file leaves out fall back to the adapter's. `do_sample: false` is
    temperature 0.
    """
    stated = read_json(folder, "generation_config.json") or {}
    known = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
    values = {name: stated[name] for name in known if stated.get(name) is not None}
    if stated.get("do_sample") is False:
        values["temperature"] = 0.0
    return get_model_adapter(folder).generation_defaults | values


def resolve_device(device: str) -> str:
    """The torch device that a --device value means.

    Raises:
        SettingsError: the device is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "--device cuda was given, but torch finds no CUDA device.",
            hint="Use --device cpu, or install a CUDA build of torch and its driver.",
        )
    if device not in ("cpu", "cuda", "mps", "xpu", "npu"):
        raise SettingsError(
            f"--device is {device!r}; allowed are auto, cpu, cuda, mps, xpu and npu."
        )
    return device


def _int8(device: str) -> Any:
    if device != "cuda":
        raise SettingsError(
            f"--load-8bit needs a CUDA device here; the device is {device}.",
            hint="Leave the flag out on the CPU.",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _device_map(
    folder: str, dtype: str | torch.dtype | None, memory: dict[int, int]
) -> dict[str, int]:
    import torch

    from fastchat.model.device_maps import map_layers

    held: torch.dtype | None = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    adapted = read_json(folder, "adapter_config.json") is not None
    return map_layers(base_of(folder) if adapted else folder, held, memory)


def _memory_per_gpu(device: str, num_gpus: int, wanted: str | None) -> dict[int, int]:
    import torch

    from fastchat.model.device_maps import bytes_of

    found = torch.cuda.device_count() if device == "cuda" else 0
    if found < num_gpus:
        raise SettingsError(
            f"--num-gpus is {num_gpus}, but torch finds {found} CUDA devices.",
            hint="Lower --num-gpus, or name the GPUs with --gpus.",
            param="--num-gpus",
        )
    if wanted is not None:
        return dict.fromkeys(range(num_gpus), bytes_of(wanted))
    # Leave room for the cache and the activations beside the weights.
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(num_gpus)]
    return {gpu: int(size * 0.85) for gpu, size in enumerate(free)}


for _adapter in (PeftModelAdapter(get_model_adapter), Yuan2Adapter(), BaseModelAdapter()):
    register_model_adapter(_adapter)
