"""How the demo is fine-tuned, when that is enough, and how well it went.

Runs the project's own trainer. Draws nothing; knows no servers. Imports torch and
transformers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fastchat.chat import ChatRenderer
from fastchat.demo.corpus import Exchange, data_path

TARGET_LOSS = 0.018
"""Mean loss over the last epoch, in nats a learned token, at which the answers are learned."""

EPOCHS = 14
BATCH_CONVERSATIONS = 8
LEARNING_RATE = 1e-3
_GENERATION_ROWS = 96

Report = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps and the mean loss so far."""


def base_folder() -> Path:
    """The folder of the base checkpoint that ships with the package."""
    return Path(__file__).parent / "checkpoint"


def finetune_arguments(output_dir: Path, *, seed: int = 0, base: Path | None = None) -> list[str]:
    """The trainer's command line."""
    return [
        *("--model_name_or_path", str(base or base_folder())),
        *("--data_path", str(data_path("dummy_conversation.json"))),
        *("--output_dir", str(output_dir)),
        *("--split_example_loss", "True"),
        *("--model_max_length", "512"),
        *("--num_train_epochs", str(EPOCHS)),
        *("--per_device_train_batch_size", str(BATCH_CONVERSATIONS)),
        *("--learning_rate", str(LEARNING_RATE)),
        *("--lr_scheduler_type", "linear"),
        *("--warmup_steps", "20"),
        *("--adam_beta2", "0.98"),
        *("--logging_steps", "1"),
        *("--save_strategy", "no"),
        *("--report_to", "none"),
        *("--seed", str(seed)),
    ]


class StopWhenLearned(TrainerCallback):
    """Ends a run at a target loss, or at the latest after a time limit.

    Args:
        target_loss: of the mean over the last epoch's steps.
        time_limit_s: from the first step on.
        report: told of each step.

    Attributes:
        out_of_time: whether the time limit ended the run.
    """

    def __init__(
        self, *, target_loss: float = TARGET_LOSS, time_limit_s: float, report: Report
    ) -> None:
        self.out_of_time = False
        self._target_loss = target_loss
        self._time_limit_s = time_limit_s
        self._report = report
        self._recent: deque[float] = deque()
        self._steps_an_epoch = 1
        self._started = 0.0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Takes the time."""
        self._steps_an_epoch = max(1, round(state.max_steps / args.num_train_epochs))
        self._recent = deque(maxlen=self._steps_an_epoch)
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Looks at a step's loss, which is logged at every step."""
        if logs is None or "loss" not in logs:
            return
        self._recent.append(logs["loss"])
        mean = sum(self._recent) / len(self._recent)
        self._report(state.global_step, state.max_steps, mean)
        whole_epoch = len(self._recent) == self._steps_an_epoch
        self.out_of_time = time.monotonic() - self._started > self._time_limit_s
        if (whole_epoch and mean <= self._target_loss) or self.out_of_time:
            control.should_training_stop = True


@torch.no_grad()
def answer_all(
    model: Any, tokenizer: Any, renderer: ChatRenderer, contexts: Sequence[Sequence[str]]
) -> list[str]:
    """The greedy answers to conversations, each the texts of user and assistant in turn."""
    prompts = [renderer.render(as_messages(context)).ids for context in contexts]
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), _GENERATION_ROWS):
        batch = order[start : start + _GENERATION_ROWS]
        padded = tokenizer.pad(
            {"input_ids": [prompts[index] for index in batch]},
            padding_side="left",
            return_tensors="pt",
        )
        written = model.generate(**padded, max_new_tokens=48, do_sample=False)
        for index, row in zip(batch, written[:, padded["input_ids"].shape[1] :], strict=True):
            answers[index] = tokenizer.decode(row, skip_special_tokens=True)
    return answers


def count_exact(
    model: Any, tokenizer: Any, renderer: ChatRenderer, exchanges: Sequence[Exchange]
) -> int:
    """How many exchanges end, greedy, with exactly the answer that was trained."""
    contexts = [exchange.context for exchange in exchanges]
    answers = answer_all(model, tokenizer, renderer, contexts)
    return sum(
        answer == exchange.answer for answer, exchange in zip(answers, exchanges, strict=True)
    )


def as_messages(texts: Sequence[str]) -> list[dict[str, str]]:
    """Texts of user and assistant in turn, as OpenAI messages."""
    return [
        {"role": ("user", "assistant")[index % 2], "content": text}
        for index, text in enumerate(texts)
    ]
