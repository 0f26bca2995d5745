"""The data sets and the collator of a training run, under the name FastChat users import."""

from __future__ import annotations

from typing import Any

from fastchat.chat import ChatRenderer
from fastchat.data.dataset import read_rows, row_builder
from fastchat.train.arguments import DataArguments


def make_supervised_data_module(
    tokenizer: Any,
    data_args: DataArguments,
    *,
    renderer: ChatRenderer | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
) -> dict[str, Any]:
    """What a Trainer takes as `train_dataset`, `eval_dataset` and `data_collator`.

    Args:
        tokenizer: the model's.
        data_args: which files, and what of them is learned.
        renderer: the model's chat renderer; found by the tokenizer's folder if not given.
        max_length: longest row in tokens; the tokenizer's `model_max_length` if not given.
        padding_side: where short rows are padded.

    Raises:
        DataError: a file cannot be used; see `fastchat.data`.
    """
    from fastchat.model.model_adapter import get_chat_renderer
    from fastchat.train.batching import RowCollator

    builder = row_builder(
        tokenizer,
        renderer or get_chat_renderer(tokenizer, tokenizer.name_or_path),
        data_args.loss_mode,
        tokenizer.model_max_length if max_length is None else max_length,
    )
    eval_path = data_args.eval_data_path
    lazy = data_args.lazy_preprocess
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return {
        "train_dataset": read_rows(data_args.data_path, builder, lazy=lazy),
        "eval_dataset": read_rows(eval_path, builder, lazy=lazy) if eval_path else None,
        "data_collator": RowCollator(pad_id, padding_side),
    }
