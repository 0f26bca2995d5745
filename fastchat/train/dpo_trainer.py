"""The loop that learns preferences: a `YuanTrainer` with another loss and its figures.

Imports torch and transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastchat.errors import SettingsError
from fastchat.model.forest import mask_for_forest
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.dpo_data import PairCollator, PairDataset
from fastchat.train.dpo_loss import PairLosses, answer_log_probs, pair_losses
from fastchat.train.trainer import YuanTrainer

logger = logging.getLogger(__name__)


class DpoTrainer(YuanTrainer):
    """Trains on pairs of answers.

    A batch is one forward pass over prompts and both their answers. The loss of a step is
    the mean over all pairs of the whole global batch. The reference is the model as it was
    when training began: the base without its adapter, asked beside every step; or, where
    that is something else, what it gave each answer, found out once before the first step.

    Args:
        dpo: which loss.
        pairs: the data sets whose references are found out beforehand; None asks the base
            without its adapter.
        **options: as for `YuanTrainer`.

    Raises:
        SettingsError: a model that cannot read prompts with two answers.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self, *, dpo: DpoArguments, pairs: Sequence[PairDataset] | None, **options: Any
    ) -> None:
        if not isinstance(options["data_collator"], PairCollator):
            raise SettingsError(
                f"A model of type {options['model'].config.model_type} cannot be trained on"
                " preferences: it attends in ways that two answers to one prompt do not.",
                hint="Use a Yuan2, or a model with plain full attention.",
            )
        self._dpo = dpo
        self._pairs = pairs
        self._figures: dict[str, float] = {}
        self._eval_figures: dict[str, float] = {}
        super().__init__(**options)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; asks the reference beforehand, where that has to be."""
        for pairs in self._pairs or ():
            pairs.references = self._ask_reference(pairs)
        return super().train(*args, **kwargs)

    # ---- the loss ----------------------------------------------------------------------

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """A batch's share of the step's loss; without a count of the step's pairs, its mean."""
        outcome = self._outcome(model, inputs)
        _count(self._figures, outcome)
        loss = outcome.losses.sum()
        if num_items_in_batch is None:
            loss = loss / len(outcome.losses)
        else:  # processes' gradients are averaged
            loss = loss * self.args.world_size / num_items_in_batch
        return (loss, {"log_probs": outcome.log_probs}) if return_outputs else loss

    def _outcome(self, model: torch.nn.Module, inputs: dict[str, Any]) -> PairLosses:
        reference = inputs.get("reference")
        if reference is None:
            # First, as switching an adapter off and on must not happen inside a graph.
            base: Any = self.accelerator.unwrap_model(model)
            with torch.no_grad(), base.disable_adapter():
                reference = self._log_probs(model, inputs)
        return pair_losses(self._log_probs(model, inputs), reference, self._dpo)

    def _log_probs(self, model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
        """(B, 2) log probabilities of the answers."""
        fed = {name: inputs[name] for name in ("input_ids", "forest", "logits_to_keep")}
        if self._is_yuan:
            losses = model(**fed, shift_labels=inputs["shift_labels"], reduction="none").loss
        else:
            fed["position_ids"] = inputs["position_ids"]
            fed["attention_mask"] = mask_for_forest(fed["input_ids"])
            logits = model(**fed).logits[0]  # (K, V)
            losses = cross_entropy(logits.float(), inputs["shift_labels"], reduction="none")
        return answer_log_probs(
            losses,
            inputs["answer_of"],
            len(inputs["item_ids"]),
            mean=self._dpo.loss_type == "ipo",
        )

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> Tensor:
        pairs = float(sum(len(batch["item_ids"]) for batch in batch_samples))
        return torch.tensor(self._sum_over_processes([pairs])[0], device=device)

    # ---- the reference -----------------------------------------------------------------

    def _ask_reference(self, pairs: PairDataset) -> NDArray[np.float32]:
        """(N, 2) log probabilities under the model as it is; each process asks for its share."""
        logger.info("asking the reference, once: %d pairs", len(pairs))
        model = self.accelerator.unwrap_model(self.model).to(self.args.device).eval()
        table = torch.zeros(len(pairs), 2, device=self.args.device)
        share = range(self.args.process_index, len(pairs), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(share), size):
            numbers = list(share[start : start + size])
            batch = self.data_collator([pairs[number] for number in numbers])
            with torch.no_grad(), self.accelerator.autocast():
                table[numbers] = self._log_probs(model, send_to_device(batch, self.args.device))
        if self.args.world_size > 1:
            table = self.accelerator.reduce(table, "sum")
        return table.cpu().numpy()

    # ---- figures -----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in transformers; a step's loss is joined by the means over pairs since the last."""
        if "loss" in logs:
            logs = logs | self._means(self._figures)
            self._figures.clear()
        super().log(logs, start_time)

    def _means(self, figures: dict[str, float]) -> dict[str, float]:
        names = sorted(figures)
        sums = dict(zip(names, self._sum_over_processes([figures[n] for n in names]), strict=True))
        count = sums.pop("pairs", 0.0)
        return {name: value / count for name, value in sums.items()}

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, None, None]:
        """A batch's mean loss; its sum is kept for the mean over all pairs."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outcome = self._outcome(model, inputs)
        _count(self._eval_figures, outcome)
        self._evaluated[0] += float(outcome.losses.sum())
        self._evaluated[1] += len(outcome.losses)
        return outcome.losses.mean(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with means over pairs."""
        self._eval_figures.clear()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        means = self._means(self._eval_figures)
        output.metrics.update({f"{prefix}_{name}": value for name, value in means.items()})
        return output


def _count(sums: dict[str, float], outcome: PairLosses) -> None:
    figures = outcome.figures()
    values = torch.stack([value.float() for value in figures.values()]).tolist()
    more = dict(zip(figures, values, strict=True)) | {"pairs": float(len(outcome.losses))}
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value
