"""Fine-tunes all weights of a model; the name under which FastChat's guides start training.

    torchrun --nproc_per_node=8 fastchat/train/train_mem.py --model_name_or_path MODEL ...

The same as `train_yuan2`: the memory-saving attention kernels that this name once stood
for are torch's own today.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started as a file: look for packages beside fastchat, not beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from fastchat.train.run import main, train

__all__ = ["train"]

if __name__ == "__main__":
    sys.exit(main())
