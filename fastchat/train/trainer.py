"""The training loop: transformers' Trainer, with what Yuan2's users may rely on.

Imports torch and transformers. How items become batches is the collator's affair.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from fastchat.errors import TrainingError
from fastchat.model import YuanConfig
from fastchat.model.forest import mask_for_forest
from fastchat.train.batch_counts import count
from fastchat.train.checkpoints import (
    STATE_FILE,
    clear_staging,
    move_model,
    reveal_checkpoint,
    rotate,
    staging_folder,
)
from fastchat.train.report.flops import useful_flops
from fastchat.train.report.throughput import Throughput
from fastchat.train.sharding import check_layers, check_sharded, keep_sums_exact, shard_on_cpu


class YuanTrainer(Trainer):
    """Trains on conversations.

    The loss of a step is the mean over all learned tokens of the whole global batch, so 8
    items at once weigh as 8 accumulated one by one, and so does the evaluation loss over
    its data. A loss that is no number ends the run. Everything saved carries the tokenizer
    and the config's own `use_cache`; special token ids in the configs stay as the
    checkpoint has them.

    Args:
        tokenizer: saved beside the weights. Not given to the Trainer, which would write
            the tokenizer's begin token into the model's configs.
        throughput: counts what is computed.
        **options: as for `transformers.Trainer`.
    """

    def __init__(
        self, *, tokenizer: Any, throughput: Throughput | None = None, **options: Any
    ) -> None:
        self._tokenizer = tokenizer
        self._use_cache = options["model"].config.use_cache
        self._throughput = throughput or Throughput()
        self._evaluated = [0.0, 0.0]  # summed loss, learned tokens
        self._staging: Path | None = None
        super().__init__(**options)
        model = self.accelerator.unwrap_model(self.model)
        self._is_yuan = isinstance(model.config, YuanConfig)
        self._shape = model.config.to_dict()
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._adapter_weights = trained if hasattr(model, "peft_config") else None

    def create_accelerator_and_postprocess(self) -> None:
        """As in transformers, with FSDP on the CPU as well."""
        super().create_accelerator_and_postprocess()
        wanted = self.args.fsdp_plugin_args
        if wanted is not None:
            self.is_fsdp_enabled |= shard_on_cpu(self.accelerator, wanted)
            keep_sums_exact(self.accelerator.state.fsdp_plugin)
            check_layers(self.model, wanted)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.args.fsdp:
            check_sharded(self.model)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as a share of the whole step's where that is counted."""
        inputs = {name: value for name, value in inputs.items() if name != "item_ids"}
        if "forest" in inputs and not self._is_yuan:
            inputs["attention_mask"] = mask_for_forest(inputs["input_ids"])
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

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
        counted = count(inputs)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            ids = inputs["item_ids"]
            shown = ", ".join(map(repr, ids[:8])) + (", ..." if len(ids) > 8 else "")
            raise TrainingError(
                f"The loss became {loss.item()} in step {self.state.global_step + 1}, at"
                f" {shown}; the run was stopped, and checkpoints before it are sound.",
                hint="Lower --learning_rate, give --warmup_ratio, or use --bf16 for --fp16.",
            )
        self._throughput.add(
            counted.tokens,
            counted.learned,
            counted.items,
            useful_flops(
                self._shape,
                counted.tokens,
                counted.learned,
                counted.attention_pairs,
                adapter_weights=self._adapter_weights,
            ),
            padding=counted.padding,
        )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in transformers; what a step's loss is logged with is joined by the rates."""
        if "loss" in logs:
            logs = logs | self._throughput.rates(self._sum_over_processes)
        super().log(logs, start_time)

    def _sum_over_processes(self, counts: list[float]) -> list[float]:
        if self.args.world_size == 1:
            return counts
        local = torch.tensor(counts, dtype=torch.float32, device=self.args.device)
        summed: list[float] = self.accelerator.reduce(local, "sum").tolist()
        return summed

    # ---- evaluation --------------------------------------------------------------------

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, None, None]:
        """A batch's mean loss; its sum is kept for the mean over all tokens."""
        learned = count(inputs).learned
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs).detach()
        self._evaluated[0] += float(loss) * learned
        self._evaluated[1] += learned
        return loss, None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with the mean over learned tokens for that over batches."""
        self._evaluated = [0.0, 0.0]
        output = super().evaluation_loop(*args, **kwargs)
        summed, learned = self._sum_over_processes(self._evaluated)
        name = f"{kwargs.get('metric_key_prefix', 'eval')}_loss"
        if name in output.metrics and learned:
            output.metrics[name] = summed / learned
        return output

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in transformers; the time does not count as training."""
        with self._throughput.paused():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            dataset=data,
            lengths=data.lengths.tolist(),
        )

    # ---- saving ------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in transformers, but the folder gets its name when it is whole.

        Raises:
            TrainingError: the checkpoint cannot be written; those before it stay.
        """
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        with self._throughput.paused(), self._staged(name) as staging:
            super()._save_checkpoint(model, trial)
            if self.state.best_model_checkpoint == str(staging / name):
                self.state.best_model_checkpoint = str(folder / name)
                if self.args.should_save:
                    self.state.save_to_json(str(staging / name / STATE_FILE))
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                reveal_checkpoint(staging / name)
                rotate(folder, self.args.save_total_limit, self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder / name))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._staging is None:  # its name is not its own yet
            super()._push_from_checkpoint(checkpoint_folder)

    @contextlib.contextmanager
    def _staged(self, what: str) -> Iterator[Path]:
        """A folder that all processes may write into until it ends."""
        folder = Path(self.args.output_dir)
        try:
            self._staging = staging_folder(folder, create=self.args.should_save)
            self.accelerator.wait_for_everyone()
            yield self._staging
        except (OSError, RuntimeError, SafetensorError) as error:
            free_mb = shutil.disk_usage(folder).free / 1e6
            if self.args.should_save:
                clear_staging(folder)
            raise TrainingError(
                f"{what} could not be saved in {folder}, with {free_mb:.0f} MB free there: {error}",
                hint="Checkpoints before it are whole; the same command goes on from the last.",
            ) from error
        finally:
            self._staging = None

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

    def publish(self) -> None:
        """Saves the trained model in the output folder; a half-written one never looks whole.

        Everything is written into a folder inside it first, then moved piece by piece;
        config.json, without which nothing loads the rest, comes last.

        Raises:
            TrainingError: it cannot be written.
        """
        with self._staged("The model") as staging:
            self.save_model(str(staging))  # on every process: sharded weights are gathered
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.save_to_json(str(staging / STATE_FILE))
                move_model(staging, Path(self.args.output_dir))
            self.accelerator.wait_for_everyone()
