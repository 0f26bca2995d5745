"""Fine-tunes all weights of a model; FastChat's general name for `train_yuan2`.

    torchrun --nproc_per_node=8 fastchat/train/train.py --model_name_or_path MODEL ...

The chat format comes from the model, so there is nothing to choose between the two.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as a file: look for packages beside fastchat, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastchat.train.arguments import (
    DataArguments,
    ModelArguments,
    __getattr__,  # noqa: F401  (makes TrainingArguments when it is first asked for)
)
from fastchat.train.data_module import make_supervised_data_module
from fastchat.train.run import main, train

if TYPE_CHECKING:
    from fastchat.train.training_arguments import TrainingArguments

__all__ = [
    "DataArguments",
    "ModelArguments",
    "TrainingArguments",
    "make_supervised_data_module",
    "train",
]


if __name__ == "__main__":
    sys.exit(main())
