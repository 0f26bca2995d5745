"""Loads the model that is to be trained: all of it, or with an adapter.

Imports torch and transformers.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import fastchat.model  # noqa: F401  (registers Yuan2 with transformers)
from fastchat.errors import CheckpointError, SettingsError
from fastchat.model.forest import register_forest_attention
from fastchat.model.weight_files import refuse_missing_files
from fastchat.train.adapter import four_bits, quiet_bitsandbytes, with_adapter
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
        quiet_bitsandbytes()
        options |= four_bits(args, dtype)
    path = model_args.model_name_or_path
    refuse_missing_files(path)
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
    return model if lora is None else with_adapter(model, lora, args)


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


def lay_out_flat(model: Any) -> bool:
    """Readies a model for rows that hold a forest; false where it cannot read them.

    A Yuan2 reads them as it is. Another model does if all it does with other tokens is
    plain attention, through transformers' attention interface.
    """
    config = model.config
    if config.model_type == "yuan":
        return True
    plain = (
        set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and not (
            getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        )
        and not getattr(config, "attn_logit_softcapping", None)
    )
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not plain or not base._supports_attention_backend:  # noqa: SLF001
        return False
    register_forest_attention()
    base.set_attn_implementation("forest")
    return True
