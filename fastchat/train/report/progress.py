"""Says how far a run is: a line that renews itself on a terminal, else a line for each log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback

from fastchat.train.report.figures import duration, rates_in_words, short

_BAR = (
    "{desc}{percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left{postfix}]"
)


class ProgressLine(TrainerCallback):
    """Takes the place of transformers' `ProgressCallback` and `PrinterCallback`.

    Speaks on the main process only. On a terminal, unless --disable_tqdm is given, there is
    one line with the step, the loss, the rates and the time left, and evaluations are
    written above it. Else each log is a line of its own.

    Args:
        stream: where to write; standard error if None, looked up when training begins.
        clock: seconds that only go forward.
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._bar: Any = None
        self._first_step = 0
        self._begun = 0.0
        self._evaluated = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draws the line."""
        del control, kwargs
        self._first_step, self._begun = state.global_step, self._clock()
        if state.is_world_process_zero and not args.disable_tqdm and self._out.isatty():
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                file=self._out,
                dynamic_ncols=True,
                miniters=0,  # how often a step ends says nothing of how often to draw
                bar_format=_BAR,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves on."""
        del args, control, kwargs
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Shows that an evaluation is going on."""
        del args, state, control, kwargs
        self._evaluated += 1
        if self._bar is not None:
            known = hasattr(eval_dataloader, "__len__")
            of = f"/{len(eval_dataloader)}" if known else ""
            self._bar.set_description_str(f"evaluating {self._evaluated}{of} ", refresh=False)
            self._bar.update(0)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Goes back to training."""
        del args, state, control, kwargs
        self._evaluated = 0
        if self._bar is not None:
            self._bar.set_description_str("", refresh=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Renews the figures, or writes a line of them."""
        del args, control, kwargs
        if not state.is_world_process_zero or not logs:
            return
        if self._bar is not None and "loss" in logs:
            words = [f"loss {short(logs['loss'])}", *rates_in_words(logs, padding=False)]
            self._bar.set_postfix_str(", ".join(words), refresh=False)
            self._bar.update(0)
        elif words := figures_in_words(logs):
            self._write(" | ".join([f"step {state.global_step}/{state.max_steps}", *words]), state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leaves the last line standing."""
        del args, state, control, kwargs
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stderr

    def _write(self, line: str, state: Any) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._out)
            return
        done = state.global_step - self._first_step
        ahead = state.max_steps - state.global_step
        if done > 0 and ahead > 0:
            line += f" | {duration((self._clock() - self._begun) / done * ahead)} left"
        print(line, file=self._out, flush=True)


def figures_in_words(logs: Mapping[str, Any]) -> list[str]:
    """What is worth reading in a log while the run goes on."""
    said = [
        f"{name} {short(logs[key])}"
        for key, name in (
            ("loss", "loss"),
            ("eval_loss", "evaluation loss"),
            ("learning_rate", "lr"),
            ("grad_norm", "grad norm"),
        )
        if isinstance(logs.get(key), int | float)
    ]
    if "train_runtime" in logs:
        said.append(f"trained for {duration(logs['train_runtime'])}")
        if "train_loss" in logs:
            said.append(f"mean loss {short(logs['train_loss'])}")
    return said + rates_in_words(logs)
