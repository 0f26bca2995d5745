"""Puts what watches a run into a Trainer, and finds the peak that its rate is taken against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from fastchat.train.report import metrics_file, samples
from fastchat.train.report.peaks import Precision, peak_tflops
from fastchat.train.report.progress import ProgressLine
from fastchat.train.report.throughput import Throughput
from fastchat.train.settings import Settings
from fastchat.train.stopping import callbacks_for


def install(
    trainer: Any,
    *,
    progress: bool = True,
    throughput: Throughput | None = None,
    questions: Sequence[samples.Question] = (),
    generate: samples.Generate | None = None,
) -> None:
    """Gives a Trainer this project's callbacks in place of transformers' progress.

    Call it before `trainer.train()`.

    Args:
        trainer: a transformers Trainer with this project's `TrainingArguments`.
        progress: whether to say how far the run is.
        throughput: counts the run's tokens; started with the first step.
        questions: what the model is asked as it learns; see `samples.last_questions`.
        generate: answers them; needed where there are questions.
    """
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    for callback in report_callbacks(
        trainer.args,
        progress=progress,
        throughput=throughput,
        questions=questions,
        generate=generate,
    ):
        trainer.add_callback(callback)


def report_callbacks(
    args: Any,
    *,
    progress: bool = True,
    throughput: Throughput | None = None,
    questions: Sequence[samples.Question] = (),
    generate: samples.Generate | None = None,
) -> list[TrainerCallback]:
    """What `install` puts into a Trainer: metrics, progress, sample answers, early stopping."""
    folder = Path(args.output_dir)
    callbacks: list[Any] = [metrics_file.MetricsWriter(folder / metrics_file.FILE_NAME)]
    if throughput is not None:
        callbacks.append(ThroughputStart(throughput))
    if progress:
        callbacks.append(ProgressLine())
    if questions:
        assert generate is not None, "questions need somebody who answers"
        callbacks.append(samples.SampleWriter(folder / samples.FILE_NAME, questions, generate))
    return callbacks + callbacks_for(args)


class ThroughputStart(TrainerCallback):
    """Has the time count from the first step on, not from when the Trainer was made."""

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput
        self._waiting = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Waits for a first step, of this start of the run."""
        del args, state, control, kwargs
        self._waiting = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the time, once."""
        del args, state, control, kwargs
        if self._waiting:
            self._throughput.start()
            self._waiting = False


def settings_shown(settings: Settings) -> dict[str, object]:
    """What a run was told, by flag, for `RunFacts.settings`."""
    parts: list[Any] = [settings.model, settings.data, settings.lora, settings.extra]
    shown: dict[str, object] = {}
    for part in parts:
        shown |= {} if part is None else asdict(part)
    return shown | settings.training


def peak_flops(args: Any, device_name: str | None) -> float | None:
    """The best rate of all devices of a run together, in FLOP/s; None if it is not known.

    Args:
        args: `TrainingArguments`; `peak_tflops`, where it was given, is of one device.
        device_name: as torch.cuda.get_device_name gives it; None on a CPU.
    """
    tflops: float | None = args.peak_tflops
    if tflops is None and device_name is not None:
        tflops = peak_tflops(device_name, _precision(args))
    return None if tflops is None else tflops * 1e12 * args.world_size


def _precision(args: Any) -> Precision:
    if args.bf16:
        return "bf16"
    if args.fp16:
        return "fp16"
    return "tf32" if args.tf32 else "fp32"
