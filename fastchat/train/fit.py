"""One training run, from settings to a saved model. Imports torch and transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from fastchat.data.reader import iter_samples
from fastchat.data.sample import Sample
from fastchat.errors import SettingsError
from fastchat.model import load_tokenizer
from fastchat.model.cpu_matmul import use_fastest_float32
from fastchat.model.model_adapter import get_chat_renderer
from fastchat.train.adapter import check_adapter_settings
from fastchat.train.checkpoints import checkpoint_to_resume
from fastchat.train.data_module import make_supervised_data_module, padding_collator
from fastchat.train.deepspeed_config import read_deepspeed_config
from fastchat.train.distributed import (
    check_agreement,
    check_combination,
    process_count,
    start_deepspeed,
)
from fastchat.train.loading import lay_out_flat, load_for_training
from fastchat.train.machine import fit_to, look, use_one_gpu
from fastchat.train.report.answering import greedy_answers
from fastchat.train.report.page import RunFacts
from fastchat.train.report.samples import FILE_NAME as SAMPLES_FILE
from fastchat.train.report.samples import last_questions, read_answers
from fastchat.train.report.throughput import Throughput
from fastchat.train.report.watching import install, peak_flops, settings_shown
from fastchat.train.report.writing import write_report
from fastchat.train.settings import Settings
from fastchat.train.stopping import prepare_stopping
from fastchat.train.trackers import choose_trackers
from fastchat.train.trainer import YuanTrainer
from fastchat.train.training_arguments import TrainingArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What a run learns from its data.

    Attributes:
        data: reads the data, with `make_supervised_data_module`'s arguments; what it gives
            is handed to the trainer.
        trainer: makes the Trainer.
        samples: the conversations of a data file, to ask the model their questions.
        check: refuses training arguments, before the data are read.
    """

    data: Callable[..., dict[str, Any]] = make_supervised_data_module
    trainer: Callable[..., YuanTrainer] = YuanTrainer
    samples: Callable[[str], Iterable[Sample]] = iter_samples
    check: Callable[[TrainingArguments], None] = lambda _: None


def fit(
    settings: Settings, callbacks: Sequence[TrainerCallback] = (), task: Task | None = None
) -> dict[str, float]:
    """Trains, evaluates where there is data for it, and saves; returns the run's figures.

    Args:
        settings: what was asked for.
        callbacks: watch the run.
        task: what is learned; the answers of conversations if None.

    Raises:
        FastChatError: see `fastchat.train.run.train`.
    """
    task = task or Task()
    evaluates = bool(settings.data.eval_data_path or settings.data.eval_ratio)
    values = dict(settings.training)
    choose_trackers(values)
    prepare_stopping(values, evaluates=evaluates)
    if settings.data.tokens_per_batch is not None:
        values.setdefault("per_device_train_batch_size", 1)
    args, notes = training_arguments(values)
    notes = [*settings.notes, *notes]
    for note in notes:
        logger.warning("%s", note)
    _check_evaluation(evaluates, args)
    _make_folder(Path(args.output_dir))
    if settings.lora is not None:
        check_adapter_settings(settings.lora, args)
    task.check(args)
    start_deepspeed(args)
    resume_from = checkpoint_to_resume(Path(args.output_dir), args.resume_from_checkpoint)
    check_agreement(resume_from, args.world_size)

    if args.device.type == "cpu":
        use_fastest_float32()
    path = settings.model.model_name_or_path
    tokenizer = load_tokenizer(path, cache_dir=args.cache_dir)
    renderer = get_chat_renderer(tokenizer, path)
    data = task.data(
        tokenizer,
        settings.data,
        renderer=renderer,
        max_length=args.model_max_length,
        padding_side=settings.model.padding_side,
        seed=args.seed,
    )
    transformers.set_seed(args.seed)  # an adapter's weights are drawn before the Trainer seeds
    model = load_for_training(settings.model, args, settings.lora, tokenizer)
    if settings.data.packing and not lay_out_flat(model):
        notes.append(
            f"Batches are padded: {model.config.model_type} attends in ways that rows of several"
            " conversations do not."
        )
        logger.warning("%s", notes[-1])
        data["data_collator"] = padding_collator(tokenizer, settings.model.padding_side)
    device = torch.cuda.get_device_name() if args.device.type == "cuda" else None
    throughput = Throughput(peak_flops=peak_flops(args, device))
    trainer = task.trainer(
        tokenizer=tokenizer,
        model=model,
        args=args,
        throughput=throughput,
        callbacks=list(callbacks),
        **data,
    )
    asked = (settings.data.eval_sources or settings.data.sources)[0].path
    install(
        trainer,
        progress=not callbacks and not args.disable_tqdm,
        throughput=throughput,
        questions=last_questions(task.samples(asked), renderer, args.sample_generations),
        generate=greedy_answers(trainer.model, tokenizer, synced=args.world_size > 1),
    )
    if resume_from is not None:
        logger.info("resuming from %s", resume_from)
    result = trainer.train(resume_from_checkpoint=resume_from and str(resume_from))
    metrics = dict(result.metrics)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if logged:
        metrics["loss"] = logged[-1]
    if data["eval_dataset"] is not None:
        metrics |= trainer.evaluate()
    trainer.publish()
    if trainer.is_world_process_zero():
        write_report(
            Path(args.output_dir), trainer.state.log_history, _facts(settings, data, notes, args)
        )
    return metrics


def _facts(settings: Settings, data: dict[str, Any], notes: list[str], args: Any) -> RunFacts:
    train, evaluation = data["train_dataset"], data["eval_dataset"]
    return RunFacts(
        model=settings.model.model_name_or_path,
        settings=settings_shown(settings),
        counts=train.stats.as_dict(),
        eval_counts={} if evaluation is None else evaluation.stats.as_dict(),
        row_lengths=train.lengths.tolist(),
        samples=read_answers(Path(args.output_dir) / SAMPLES_FILE),
        notes=notes,
    )


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
    check_combination(values, process_count(os.environ))
    # Items are trees, from which the Trainer must not pick columns; and labels are one thing,
    # whatever else the model's forward takes.
    values |= {"remove_unused_columns": False, "label_names": ["labels"]}
    try:
        args = TrainingArguments(**values)
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise SettingsError(f"These training arguments cannot be used: {error}") from error
    return args, notes + use_one_gpu(args)


def _make_folder(folder: Path) -> None:
    """Makes the output folder now, as it would be a pity to find at the end that it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"--output_dir {folder} cannot be used as a folder: {error.strerror}.",
            hint="Name another, or one that does not exist yet.",
            param="output_dir",
        ) from error


def _check_evaluation(evaluates: bool, args: TrainingArguments) -> None:
    if args.eval_strategy != "no" and not evaluates:
        raise SettingsError(
            f"--eval_strategy is {args.eval_strategy.value!r}, but there is nothing to evaluate.",
            hint="Give --eval_data_path or --eval_ratio, or --eval_strategy no.",
            param="eval_data_path",
        )
