"""Fine-tunes a LoRA adapter on a model, or with --q_lora on its weights in 4 bits.

    python fastchat/train/train_lora.py --model_name_or_path MODEL --data_path chat.json \
        --output_dir OUT --lora_r 8

Saves adapter_config.json and the adapter's weights, in peft's format, and the tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: look for packages beside fastchat, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastchat.train import run
from fastchat.train.arguments import DataArguments, LoraArguments, ModelArguments
from fastchat.train.data_module import make_supervised_data_module

__all__ = [
    "DataArguments",
    "LoraArguments",
    "ModelArguments",
    "make_supervised_data_module",
    "train",
]


def train(argv: Sequence[str] | None = None, callbacks: Sequence[Any] = ()) -> dict[str, float]:
    """Trains an adapter; see `fastchat.train.run.train`."""
    return run.train(argv, callbacks, lora=True)


if __name__ == "__main__":
    sys.exit(run.main(lora=True))
