"""The data sets and the collator of a training run, under the name FastChat users import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastchat.chat import ChatRenderer
from fastchat.errors import DataError
from fastchat.train.arguments import DataArguments

if TYPE_CHECKING:
    from fastchat.data.bins import Bins
    from fastchat.data.dataset import ItemDataset


def make_supervised_data_module(
    tokenizer: Any,
    data_args: DataArguments,
    *,
    renderer: ChatRenderer | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
    seed: int = 0,
) -> dict[str, Any]:
    """What a Trainer takes as `train_dataset`, `eval_dataset` and `data_collator`.

    Args:
        tokenizer: the model's.
        data_args: which files, and what of them is learned.
        renderer: the model's chat renderer; found by the tokenizer's folder if not given.
        max_length: longest row in tokens; the tokenizer's `model_max_length` if not given.
        padding_side: where short rows are padded, if they are.
        seed: draws what is held out, what a weight takes, and which items share a bin.

    Raises:
        DataError: a file cannot be used; see `fastchat.data`.
        SettingsError: the files' weights cannot be used.
    """
    from fastchat.data.dataset import ItemReader
    from fastchat.model.model_adapter import get_chat_renderer
    from fastchat.train.batching import ForestCollator

    reader = ItemReader(
        tokenizer,
        renderer or get_chat_renderer(tokenizer, tokenizer.name_or_path),
        data_args.loss_mode,
        tokenizer.model_max_length if max_length is None else max_length,
    )
    lazy = data_args.lazy_preprocess
    train: Any = reader.read(data_args.sources, lazy=lazy, seed=seed)
    evaluation: ItemDataset | None = None
    if data_args.eval_sources:
        evaluation = reader.read(data_args.eval_sources, lazy=lazy)
    elif data_args.eval_ratio:
        train, evaluation = train.hold_out(data_args.eval_ratio, seed)
    if data_args.tokens_per_batch is not None:
        train = _fill(train, data_args.tokens_per_batch, seed)
    return {
        "train_dataset": train,
        "eval_dataset": evaluation,
        "data_collator": ForestCollator()
        if data_args.packing
        else padding_collator(tokenizer, padding_side),
    }


def padding_collator(tokenizer: Any, padding_side: str) -> Any:
    """Pads rows with the tokenizer's pad token."""
    from fastchat.train.batching import RowCollator

    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return RowCollator(pad_id, padding_side)


def _fill(items: ItemDataset, budget: int, seed: int) -> Bins:
    from fastchat.data.bins import Bins, first_fit

    longest = int(items.lengths.max())
    if longest > budget:
        raise DataError(
            f"--tokens_per_batch is {budget}, but one conversation has {longest} tokens.",
            hint=f"Give at least {longest}, or a lower --model_max_length.",
        )
    return Bins(items, first_fit(items.lengths, budget, seed))
