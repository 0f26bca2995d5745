"""The training loop: transformers' Trainer, with what Yuan2's users may rely on.

Imports torch and transformers. Where batches will be made otherwise (packed, or several
answers over one history), `RowCollator` and the model's inputs change, and nothing here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from fastchat.errors import TrainingError
from fastchat.train.checkpoints import STATE_FILE, move_model, staging_folder


class YuanTrainer(Trainer):
    """Trains on rows of (ids, labels).

    The loss of a step is the mean over all learned tokens of the whole global batch, so 8
    rows at once weigh as 8 accumulated one by one. A loss that is no number ends the run.
    Everything saved carries the tokenizer and the config's own `use_cache`; special token
    ids in the configs stay as the checkpoint has them.

    Args:
        tokenizer: saved beside the weights. Not given to the Trainer, which would write
            the tokenizer's begin token into the model's configs.
        **options: as for `transformers.Trainer`.
    """

    def __init__(self, *, tokenizer: Any, **options: Any) -> None:
        self._tokenizer = tokenizer
        self._use_cache = options["model"].config.use_cache
        super().__init__(**options)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One forward and backward pass; returns the batch's share of the step's loss.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss.item()} in step {self.state.global_step + 1};"
                " the run was stopped, and checkpoints before it are sound.",
                hint="Lower --learning_rate, give --warmup_ratio, or use --bf16 for --fp16.",
            )
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = output_dir or self.args.output_dir
        with self._use_cache_as_loaded():
            super()._save(folder, state_dict)
        if self.args.should_save:
            self._tokenizer.save_pretrained(folder)

    @contextlib.contextmanager
    def _use_cache_as_loaded(self) -> Iterator[None]:
        config = self.model.config
        training, config.use_cache = config.use_cache, self._use_cache
        try:
            yield
        finally:
            config.use_cache = training

    def publish(self, folder: Path) -> None:
        """Saves the trained model so that a half-written one never looks whole.

        Everything is written into a folder inside the output folder first, then moved
        piece by piece; config.json, without which nothing loads the rest, comes last.
        """
        staging = staging_folder(folder, create=self.args.should_save)
        self.save_model(str(staging))  # on every process: sharded weights are gathered
        if self.args.should_save:
            self.state.save_to_json(str(staging / STATE_FILE))
            move_model(staging, folder)
