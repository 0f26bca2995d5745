"""What a run on preferences is made of. Imports torch and transformers."""

from __future__ import annotations

from typing import Any

from fastchat.data.preferences import iter_chosen
from fastchat.errors import SettingsError
from fastchat.train.arguments import LoraArguments
from fastchat.train.deepspeed_config import zero_stage
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.dpo_data import PairDataset, make_preference_data_module
from fastchat.train.dpo_trainer import DpoTrainer
from fastchat.train.fit import Task
from fastchat.train.settings import Settings
from fastchat.train.training_arguments import TrainingArguments


def dpo_task(settings: Settings) -> Task:
    """The task of a run whose `settings.extra` are `DpoArguments`."""
    dpo: DpoArguments = settings.extra
    asked_beforehand = not base_is_reference(settings.lora)

    def trainer(*, args: TrainingArguments, pairs: list[PairDataset], **options: Any) -> DpoTrainer:
        return DpoTrainer(dpo=dpo, pairs=pairs if asked_beforehand else None, args=args, **options)

    def check(args: TrainingArguments) -> None:
        if asked_beforehand:
            check_unsharded(args)

    return Task(make_preference_data_module, trainer, iter_chosen, check)


def base_is_reference(lora: LoraArguments | None) -> bool:
    """Whether the model as it was when training began is the base without its adapter.

    It is not where all weights are trained, where the adapter has learned something before,
    and where biases of the base are trained along.
    """
    return lora is not None and not lora.lora_weight_path and lora.lora_bias == "none"


def check_unsharded(args: TrainingArguments) -> None:
    """Checks that each process can ask the reference beforehand, by itself.

    Raises:
        SettingsError: the weights are spread over the processes.
    """
    engine = "ZeRO-3" if zero_stage(args.deepspeed) == 3 else "--fsdp" if args.fsdp else None
    if engine is not None:
        raise SettingsError(
            f"{engine} does not go with this kind of preference training: the reference is asked"
            " before training begins, by each process on weights of its own.",
            hint="Use ZeRO-2; or train a new adapter with --use_lora True (and --lora_bias none),"
            " whose base is the reference.",
        )
