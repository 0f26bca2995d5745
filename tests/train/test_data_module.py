"""The data module under the name and with the arguments that FastChat users know."""

from __future__ import annotations

from pathlib import Path

from fastchat.data.rows import LossMode
from fastchat.model import load_tokenizer
from fastchat.train.arguments import DataArguments
from fastchat.train.train_yuan2 import make_supervised_data_module


def test_tokenizer_and_arguments_are_all_it_needs(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    module = make_supervised_data_module(tokenizer, DataArguments(data_path=str(talks_file)))
    assert module.keys() == {"train_dataset", "eval_dataset", "data_collator"}
    assert len(module["train_dataset"]) == 7
    assert module["eval_dataset"] is None
    batch = module["data_collator"]([module["train_dataset"][index] for index in range(7)])
    assert batch["input_ids"].shape == (7, max(module["train_dataset"].lengths))


def test_limit_and_mode_reach_the_rows(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, model_max_length=30)
    path = str(talks_file)
    data_args = DataArguments(data_path=path, eval_data_path=path, efficient_loss=True)
    assert data_args.loss_mode is LossMode.EFFICIENT
    module = make_supervised_data_module(tokenizer, data_args)
    assert max(module["train_dataset"].lengths) <= 30
    assert module["eval_dataset"].stats == module["train_dataset"].stats
    longer = make_supervised_data_module(tokenizer, data_args, max_length=500)
    assert len(longer["train_dataset"]) == 4
    assert max(longer["train_dataset"].lengths) > 30
