"""Puts a LoRA adapter on a model that is to be trained: a new one, or one to go on with.

Knows peft and bitsandbytes, and imports them when they are needed; torch and transformers
at once. How the base model is loaded is `loading`'s affair.
"""

from __future__ import annotations

import logging
from dataclasses import MISSING, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastchat.errors import CheckpointError, SettingsError
from fastchat.model.learned_loss import OutputMatrix
from fastchat.model.model_folder import local_folder, read_json
from fastchat.model.weight_files import WeightFiles
from fastchat.train.arguments import LoraArguments
from fastchat.train.deepspeed_config import zero_stage
from fastchat.train.training_arguments import TrainingArguments

logger = logging.getLogger(__name__)

_PREFIX = "base_model.model."
_CONFIG_NAMES = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_bias": "bias",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
"""Flags, and what peft's configs call them."""


def check_adapter_settings(lora: LoraArguments, args: TrainingArguments) -> None:
    """Checks that the adapter can be trained as asked, before time is spent on the data.

    Raises:
        SettingsError: a library is missing, flags do not go together, or there is no
            adapter at `--lora_weight_path`.
    """
    for library, flag in (("peft", "LoRA"), ("bitsandbytes", "--q_lora" if lora.q_lora else "")):
        if flag and find_spec(library) is None:
            raise SettingsError(
                f"{flag} needs {library}, which is not installed.",
                hint="Install this project with its 'train' extra.",
            )
    if lora.q_lora:
        _check_four_bits(args)
    if lora.lora_weight_path:
        _config_of(lora.lora_weight_path)


def _check_four_bits(args: TrainingArguments) -> None:
    instead = "Use ZeRO-2 with --q_lora, or LoRA without it, which ZeRO-3 spreads over the devices."
    if zero_stage(args.deepspeed) == 3:
        raise SettingsError(
            "--q_lora does not work with ZeRO-3, which cannot spread 4-bit weights.",
            hint=instead,
            param="q_lora",
        )
    if args.fsdp:
        raise SettingsError(
            "--q_lora does not work with --fsdp, which cannot spread these 4-bit weights.",
            hint=instead,
            param="q_lora",
        )


def quiet_bitsandbytes() -> None:
    """Keeps bitsandbytes from warning of a faster kernel for 4 bits that a hub has for CPUs."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def four_bits(args: TrainingArguments, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is told to hold a model in 4 bits, on the CPU as well."""
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": args.device},
    }


def with_adapter(model: Any, lora: LoraArguments, args: TrainingArguments) -> Any:
    """The model with an adapter on it, of which alone the weights are trained.

    Args:
        model: the base.
        lora: how the adapter looks, or where there is one to go on with.
        args: for gradient checkpointing.

    Raises:
        SettingsError: modules that the model does not have, or another model's adapter.
    """
    quiet_bitsandbytes()
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    folder = None
    targets: list[str] | str = []
    if lora.lora_weight_path:
        folder, config = _config_of(lora.lora_weight_path)
        _note_own_settings(lora, config)
        _check_belongs(folder, model)
    else:
        targets = _targets(model, lora)
    if lora.q_lora:
        # The Trainer sees to gradient checkpointing, for all kinds of runs alike.
        model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model, use_gradient_checkpointing=False
        )
    if args.gradient_checkpointing:
        model.enable_input_require_grads()
    try:
        if folder is not None:
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        else:
            adapted = get_peft_model(
                model,
                LoraConfig(
                    target_modules=targets,
                    task_type="CAUSAL_LM",
                    **{name: getattr(lora, flag) for flag, name in _CONFIG_NAMES.items()},
                ),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(f"The adapter cannot be put on this model: {error}") from error
    trained, total = adapted.get_nb_trainable_parameters()
    logger.info("training %s of %s parameters (%.2f %%)", trained, total, 100 * trained / total)
    return adapted


def _targets(model: Any, lora: LoraArguments) -> list[str] | str:
    """The modules of a model to adapt: a Yuan2's by name, another model's all linear ones."""
    asked = set(lora.lora_target_modules or ["all"])
    is_yuan = model.config.model_type == "yuan"
    if not is_yuan and asked == {"all"}:
        return "all-linear"
    names = lora.target_modules if is_yuan else sorted(asked)
    present = {name.rpartition(".")[2] for name, module in model.named_modules() if _adapts(module)}
    unknown = [name for name in names if name not in present]
    if unknown:
        groups = ", or all, filter" if is_yuan else ", or all alone"
        raise SettingsError(
            f"--lora_target_modules names {', '.join(unknown)}, which this model"
            f" ({model.config.model_type}) does not have.",
            hint=f"Allowed are {', '.join(sorted(present))}{groups}.",
            param="lora_target_modules",
        )
    halves = {"q_proj", "k_proj"} & set(names)
    if is_yuan and len(halves) == 1:
        logger.warning(
            "--lora_target_modules has %s without its other half: Yuan2's q_proj and k_proj"
            " interleave heads, so each holds queries and keys of half the heads. Give both or"
            " neither.",
            halves.pop(),
        )
    return names


def _adapts(module: Any) -> bool:
    # Yuan2's output matrix computes losses, too, to which an adapter would add logits.
    return isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, OutputMatrix)


# ---- an adapter to go on with --------------------------------------------------------------


def _config_of(path: str) -> tuple[Path, dict[str, Any]]:
    """The folder of an adapter, which may be a hub's, and its config.

    Raises:
        SettingsError: there is none, or it is no LoRA.
    """
    try:
        folder = local_folder(path)
        config = read_json(folder, "adapter_config.json")
    except CheckpointError as error:
        raise SettingsError(
            f"--lora_weight_path {path} cannot be read: {error}", param="lora_weight_path"
        ) from error
    if config is None:
        raise SettingsError(
            f"--lora_weight_path {path} holds no adapter: there is no adapter_config.json.",
            hint="Give the folder that an adapter was saved in.",
            param="lora_weight_path",
        )
    if config.get("peft_type") != "LORA":
        raise SettingsError(
            f"--lora_weight_path {path} is an adapter of type {config.get('peft_type')!r};"
            " only 'LORA' can be trained here.",
            param="lora_weight_path",
        )
    return folder, config


def _note_own_settings(lora: LoraArguments, config: dict[str, Any]) -> None:
    """Says which flags have no effect, as the adapter was made otherwise."""
    defaults = {item.name: item.default for item in fields(lora) if item.default is not MISSING}
    differing = [
        f"--{flag} {getattr(lora, flag)} (it has {config[name]})"
        for flag, name in _CONFIG_NAMES.items()
        if getattr(lora, flag) not in (defaults[flag], config.get(name, getattr(lora, flag)))
    ]
    made_for = config.get("target_modules") or []
    if lora.lora_target_modules and set(lora.target_modules) != set(made_for):
        named = ", ".join(sorted(made_for)) if isinstance(made_for, list) else made_for
        differing.append(f"--lora_target_modules (it adapts {named})")
    if differing:
        logger.warning(
            "the adapter %s stays as it was made; without effect: %s",
            lora.lora_weight_path,
            ", ".join(differing),
        )


def _check_belongs(folder: Path, model: Any) -> None:
    """Checks that each matrix of an adapter belongs to a module of the model, by name and shape.

    Raises:
        SettingsError: names the first few at fault.
    """
    modules = dict(model.named_modules())
    faults: list[str] = []
    try:
        with WeightFiles(folder) as weights:
            for name in weights.names:
                path, found, matrix = name.removeprefix(_PREFIX).partition(".lora_")
                if found and matrix in ("A.weight", "B.weight"):
                    width = weights.shape(name)[matrix == "A.weight"]
                    faults += _faults(path, modules.get(path), matrix, width)
    except CheckpointError as error:
        raise SettingsError(
            f"--lora_weight_path {folder} cannot be read: {error}", param="lora_weight_path"
        ) from error
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise SettingsError(
            f"The adapter {folder} is another model's: it adapts {'; '.join(faults[:3])}{more}.",
            hint="Give the model that its adapter_config.json names as its base.",
            param="lora_weight_path",
        )


def _faults(path: str, module: Any, matrix: str, width: int) -> list[str]:
    if not _adapts(module):
        return [f"{path}, which this model does not have or which cannot be adapted"]
    side = "in" if matrix == "A.weight" else "out"
    kind = "channels" if isinstance(module, nn.Conv2d) else "features"
    here = getattr(module, f"{side}_{kind}")
    return [] if here == width else [f"{path} with {width} {side}puts where it has {here}"]
