"""The demo's training as a person sees it: before, the loss falling, after.

Imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils.logging import disable_progress_bar

from fastchat.demo.corpus import load_conversations, unique_exchanges
from fastchat.demo.finetune import (
    StopWhenLearned,
    answer_all,
    base_folder,
    count_exact,
    finetune_arguments,
)
from fastchat.model.model_adapter import get_chat_renderer, load_model
from fastchat.train.train_yuan2 import train


@dataclass(frozen=True, slots=True)
class Figures:
    """How well the fine-tuned model answers.

    Attributes:
        exact: bundled questions that get exactly the trained answer, greedy.
        asked: bundled questions, each history counted once.
        out_of_time: whether the time limit ended the training before the target loss.
    """

    exact: int
    asked: int
    out_of_time: bool


def finetune_with_progress(
    console: Console, output_dir: Path, questions: Sequence[str], *, time_limit_s: int, seed: int
) -> Figures:
    """Shows answers of the base model, fine-tunes it into a folder, and shows them again."""
    disable_progress_bar()
    _show_answers(console, base_folder(), questions, "Before fine-tuning")
    with _Reporter(console) as reporter:
        stop = StopWhenLearned(time_limit_s=time_limit_s, report=reporter.report)
        train(finetune_arguments(output_dir, seed=seed), callbacks=[stop])
    model, tokenizer, renderer = _show_answers(console, output_dir, questions, "After fine-tuning")
    exchanges = unique_exchanges(load_conversations())
    exact = count_exact(model, tokenizer, renderer, exchanges)
    return Figures(exact, len(exchanges), stop.out_of_time)


def _show_answers(console: Console, folder: Path, questions: Sequence[str], when: str) -> Any:
    model, tokenizer = load_model(str(folder), device="cpu")
    renderer = get_chat_renderer(tokenizer, str(folder))
    console.print(f"[bold]{when}[/bold]")
    answers = answer_all(model, tokenizer, renderer, [[question] for question in questions])
    for question, answer in zip(questions, answers, strict=True):
        console.print(f"  > {question}\n    {answer.strip() or '(nothing)'}", markup=False)
    console.print()
    return model, tokenizer, renderer


class _Reporter(AbstractContextManager["_Reporter"]):
    """A progress bar on a terminal; elsewhere a line at every tenth of the steps."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("fine-tuning"),
            BarColumn(),
            TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._drawing: AbstractContextManager[Any] = (
            self._bar if console.is_terminal else nullcontext()
        )
        self._task = self._bar.add_task("", total=None, loss="-")

    def __enter__(self) -> _Reporter:
        self._drawing.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._drawing.__exit__(*details)

    def report(self, step: int, total: int, loss: float) -> None:
        """Shows a step."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, total=total, loss=f"{loss:.3f}")
        elif step % max(1, total // 10) == 0:
            self._console.print(f"  step {step}/{total}  loss {loss:.3f}")
