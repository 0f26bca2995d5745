"""Loads the model that is to be trained: all of it, or with an adapter.

Imports torch and transformers.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import fastchat.model  # noqa: F401  (registers Yuan2 with transformers)
from fastchat.errors import CheckpointError, SettingsError
from fastchat.train.arguments import LoraArguments, ModelArguments
from fastchat.train.training_arguments import TrainingArguments

logger = logging.getLogger(__name__)


def load_for_training(
    model_args: ModelArguments, args: TrainingArguments, lora: LoraArguments | None, tokenizer: Any
) -> Any:
    """The model, ready to be given to a Trainer.

    Fully trained weights are float32 whatever the files hold: optimizer steps are lost in
    bfloat16's eight bits. With `--bf16` computing is autocast. The frozen weights under an
    adapter are in the format that is computed in.

    Raises:
        CheckpointError: nothing loadable there, or it does not fit the tokenizer.
        SettingsError: options that cannot be used here.
    """
    dtype = _compute_dtype(args) if lora is not None else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "cache_dir": args.cache_dir}
    if args.flash_attn:
        options["attn_implementation"] = "flash_attention_2"
    if lora is not None and lora.q_lora:
        options |= _four_bits(args, dtype)
    path = model_args.model_name_or_path
    try:
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"No causal language model could be loaded from {path}: {error}",
            hint="Give a folder with config.json and its weight files.",
        ) from error
    except ImportError as error:
        raise SettingsError(f"A library that the flags ask for is missing: {error}") from error
    _check_fit(model, tokenizer, args, path)
    return model if lora is None else _with_adapter(model, lora, args)


def _compute_dtype(args: TrainingArguments) -> torch.dtype:
    if args.bf16:
        return torch.bfloat16
    return torch.float16 if args.fp16 else torch.float32


def _check_fit(model: Any, tokenizer: Any, args: TrainingArguments, path: str) -> None:
    """The embedding is never resized: its rows beyond the vocabulary are padding."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"The tokenizer in {path} knows {len(tokenizer)} tokens, but the model has"
            f" {rows} embeddings.",
            hint="Check that tokenizer and weights belong together.",
        )
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and args.model_max_length > positions:
        logger.warning(
            "--model_max_length %d is beyond the %d positions that the model was trained on;"
            " it is trained on longer rows as it is, without scaling its positions",
            args.model_max_length,
            positions,
        )


def check_libraries(lora: LoraArguments) -> None:
    """Checks that what an adapter needs is installed, before time is spent on the data.

    Raises:
        SettingsError: a library is missing.
    """
    for library, flag in (("peft", "LoRA"), ("bitsandbytes", "--q_lora" if lora.q_lora else "")):
        if flag and find_spec(library) is None:
            raise SettingsError(
                f"{flag} needs {library}, which is not installed.",
                hint="Install this project with its 'train' extra.",
            )


def _four_bits(args: TrainingArguments, dtype: torch.dtype) -> dict[str, Any]:
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


def _with_adapter(model: Any, lora: LoraArguments, args: TrainingArguments) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if lora.q_lora:
        model = prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model,
            use_gradient_checkpointing=args.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    elif args.gradient_checkpointing:
        model.enable_input_require_grads()
    try:
        if lora.lora_weight_path:
            adapted = PeftModel.from_pretrained(model, lora.lora_weight_path, is_trainable=True)
        else:
            adapted = get_peft_model(
                model,
                LoraConfig(
                    r=lora.lora_r,
                    lora_alpha=lora.lora_alpha,
                    lora_dropout=lora.lora_dropout,
                    target_modules=lora.target_modules,
                    bias=lora.lora_bias,
                    task_type="CAUSAL_LM",
                ),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(f"The adapter cannot be put on this model: {error}") from error
    trained, total = adapted.get_nb_trainable_parameters()
    logger.info("training %s of %s parameters (%.2f %%)", trained, total, 100 * trained / total)
    return adapted
