"""One training run, from settings to a saved model. Imports torch and transformers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from fastchat.errors import SettingsError
from fastchat.model import load_tokenizer
from fastchat.model.model_adapter import get_chat_renderer
from fastchat.train.checkpoints import checkpoint_to_resume
from fastchat.train.data_module import make_supervised_data_module
from fastchat.train.deepspeed_config import read_deepspeed_config
from fastchat.train.loading import check_libraries, load_for_training
from fastchat.train.machine import fit_to, look
from fastchat.train.settings import Settings
from fastchat.train.trainer import YuanTrainer
from fastchat.train.training_arguments import TrainingArguments

logger = logging.getLogger(__name__)


def fit(settings: Settings, callbacks: Sequence[TrainerCallback] = ()) -> dict[str, float]:
    """Trains, evaluates where there is data for it, and saves; returns the run's figures.

    Raises:
        FastChatError: see `fastchat.train.run.train`.
    """
    args, notes = training_arguments(settings.training)
    for note in [*settings.notes, *notes]:
        logger.warning("%s", note)
    _check_evaluation(settings, args)
    if settings.lora is not None:
        check_libraries(settings.lora)
    resume_from = checkpoint_to_resume(Path(args.output_dir), args.resume_from_checkpoint)

    path = settings.model.model_name_or_path
    tokenizer = load_tokenizer(path, cache_dir=args.cache_dir)
    data = make_supervised_data_module(
        tokenizer,
        settings.data,
        renderer=get_chat_renderer(tokenizer, path),
        max_length=args.model_max_length,
        padding_side=settings.model.padding_side,
    )
    transformers.set_seed(args.seed)  # an adapter's weights are drawn before the Trainer seeds
    model = load_for_training(settings.model, args, settings.lora, tokenizer)
    trainer = YuanTrainer(
        tokenizer=tokenizer, model=model, args=args, callbacks=list(callbacks), **data
    )
    if callbacks:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
    if resume_from is not None:
        logger.info("resuming from %s", resume_from)
    result = trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    metrics = dict(result.metrics)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if logged:
        metrics["loss"] = logged[-1]
    if data["eval_dataset"] is not None:
        metrics |= trainer.evaluate()
    trainer.publish(Path(args.output_dir))
    return metrics


def training_arguments(values: dict[str, Any]) -> tuple[TrainingArguments, list[str]]:
    """`TrainingArguments` that this machine can follow, and notes on what was changed.

    Args:
        values: what was given, by name.

    Raises:
        SettingsError: values that cannot be used, here or at all.
    """
    values = dict(values)
    notes = fit_to(look(), values)
    if values.get("deepspeed"):
        values["deepspeed"], more = read_deepspeed_config(values["deepspeed"])
        notes += more
    try:
        return TrainingArguments(**values), notes
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise SettingsError(f"These training arguments cannot be used: {error}") from error


def _check_evaluation(settings: Settings, args: TrainingArguments) -> None:
    if args.eval_strategy != "no" and settings.data.eval_data_path is None:
        raise SettingsError(
            f"--eval_strategy is {args.eval_strategy.value!r}, but there is nothing to evaluate.",
            hint="Give --eval_data_path, or --eval_strategy no.",
            param="eval_data_path",
        )
