"""The data module under the name and with the arguments that FastChat users know."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastchat.data.rows import LossMode
from fastchat.errors import DataError
from fastchat.model import load_tokenizer
from fastchat.train.arguments import DataArguments
from fastchat.train.train_yuan2 import make_supervised_data_module
from tests.train.conftest import write_talks


def test_tokenizer_and_arguments_are_all_it_needs(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    module = make_supervised_data_module(tokenizer, DataArguments(data_path=str(talks_file)))
    assert module.keys() == {"train_dataset", "eval_dataset", "data_collator"}
    data = module["train_dataset"]
    assert len(data) == 4
    assert data.stats.rows == 7
    assert module["eval_dataset"] is None
    batch = module["data_collator"]([data[index] for index in range(4)])
    assert batch["input_ids"].shape == (1, data.lengths.sum())


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


def test_padding_takes_the_rows_apart_again(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    arguments = DataArguments(data_path=str(talks_file), packing=False)
    module = make_supervised_data_module(tokenizer, arguments)
    data = module["train_dataset"]
    batch = module["data_collator"]([data[index] for index in range(4)])
    assert batch["input_ids"].shape[0] == data.stats.rows == 7
    assert int((batch["labels"] != -100).sum()) == data.stats.learned_tokens


def test_what_is_held_out_is_not_trained_on(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    arguments = DataArguments(data_path=str(talks_file), eval_ratio=0.3)
    for seed in range(4):
        module = make_supervised_data_module(tokenizer, arguments, seed=seed)
        train, held = (
            [item.item_id for item in (data[i] for i in range(len(data)))]
            for data in (module["train_dataset"], module["eval_dataset"])
        )
        assert len(held) == 1
        assert sorted(train + held) == [f"talk_{number}" for number in range(4)]


def test_weights_say_how_often_a_file_is_read(
    tiny_model: Path, talks_file: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    other = write_talks(tmp_path / "other.json", [["a", "b"], ["c", "d"]])
    arguments = DataArguments(data_path=[str(talks_file), str(other)], data_weights=["0.5", "2"])
    data = make_supervised_data_module(tokenizer, arguments)["train_dataset"]
    assert len(data) == 2 + 4


def test_bins_hold_every_conversation_once(tiny_model: Path, talks_file: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    arguments = DataArguments(data_path=str(talks_file), tokens_per_batch=90)
    module = make_supervised_data_module(tokenizer, arguments)
    data = module["train_dataset"]
    assert data.lengths.max() <= 90
    batches = [module["data_collator"]([data[index]]) for index in range(len(data))]
    names = sorted(name for batch in batches for name in batch["item_ids"])
    assert names == [f"talk_{number}" for number in range(4)]
    with pytest.raises(DataError, match="one conversation has"):
        make_supervised_data_module(
            tokenizer, DataArguments(data_path=str(talks_file), tokens_per_batch=5)
        )
