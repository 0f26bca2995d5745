"""Fine-tunes all weights of a model with its own chat template, and holds data out.

    torchrun --nproc_per_node=8 fastchat/train/train_with_template.py \
        --model_name_or_path MODEL ...

Every trainer here takes the template from the model. What this name adds, as FastChat's
users know it: without --eval_data_path, 2 % of the data are held out to evaluate on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: look for packages beside fastchat, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastchat.train import run

__all__ = ["HELD_OUT", "train"]

HELD_OUT = ("--config", "{eval_ratio: 0.02}")
"""The first of the recipes, so that the user's own and the command line win over it."""


def train(argv: Sequence[str] | None = None, callbacks: Sequence[Any] = ()) -> dict[str, float]:
    """Trains with data held out; see `fastchat.train.run.train`."""
    return run.train([*HELD_OUT, *(sys.argv[1:] if argv is None else argv)], callbacks)


if __name__ == "__main__":
    sys.argv[1:1] = HELD_OUT
    sys.exit(run.main())
