"""One side of `peer_llamafactory.py`, in a process and an environment of its own.

    PYTHON peer_side.py SPEC

SPEC is JSON: `side` ("peer" or "own"), `arguments` of the trainer, `pad_id`, and
`fp32_precision` of torch's matrix products, or null to leave that as it is. On standard
output come JSON lines: one on the data before the first step, then one a step; each step waits
for a line on standard input, and the end of that input ends the process. What the trainers
print goes to standard error.

At the top nothing is imported that the other environment lacks.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from importlib.metadata import version
from typing import IO, Any


def main() -> None:
    """Trains until there is nothing more to read."""
    spec = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    callbacks = [gate(replies, spec["pad_id"], spec["fp32_precision"])]
    if spec["side"] == "peer":
        from llamafactory.train.tuner import run_exp

        run_exp(spec["arguments"], callbacks=callbacks)
    else:
        from fastchat.train.train import train

        train([f"--{name}={value}" for name, value in spec["arguments"].items()], callbacks)


def gate(replies: IO[str], pad_id: int, fp32_precision: str | None) -> Any:
    """A callback that lets each step wait until it is asked for, and says what it was."""
    import torch
    from transformers import TrainerCallback

    instructions = torch.backends.cpu.get_cpu_capability()

    class Gate(TrainerCallback):
        """Times whole steps: from fetching a batch to the optimizer."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
            """Says what there is to learn."""
            del args, state, control
            if fp32_precision is not None:
                torch.backends.mkldnn.matmul.fp32_precision = fp32_precision
            parts["model"].register_forward_pre_hook(self._count, with_kwargs=True)
            names = ("torch", "transformers", "accelerate")
            self._answer(
                describe(parts["train_dataloader"].dataset, pad_id)
                | {"threads": torch.get_num_threads(), "instructions": instructions}
                | {"versions": {name: version(name) for name in names}}
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Says what the step was."""
            del args, state, control
            seconds = time.perf_counter() - self._start
            self._answer({"seconds": seconds, "learned": self._learned, "places": self._places})

        @torch.compiler.disable
        def _count(self, _model: Any, _args: Any, batch: dict[str, Any]) -> None:
            labels = batch["shift_labels"] if "shift_labels" in batch else batch["labels"][:, 1:]
            self._learned += int((labels != -100).sum())
            self._places += batch["input_ids"].numel()

        def _answer(self, reply: dict[str, Any]) -> None:
            print(json.dumps(reply), file=replies, flush=True)
            if not sys.stdin.readline():
                os._exit(0)  # all is measured, and what was trained is not worth saving
            self._learned = self._places = 0
            self._start = time.perf_counter()

    return Gate()


def describe(dataset: Any, pad_id: int) -> dict[str, Any]:
    """Counts what a data set holds.

    Args:
        dataset: LLaMA-Factory's rows or this project's trees.
        pad_id: stands nowhere but in padding.

    Returns:
        Numbers of `rows`, `tokens` and `learned` tokens, and a `digest` of how often each
        id occurs and how often it is learned.
    """
    import numpy as np

    occur, learned = [], []
    for index in range(len(dataset)):
        row = dataset[index]
        if isinstance(row, dict):
            ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
            occur.append(ids[ids != pad_id])
            learned.append(labels[labels != -100])
        else:
            occur.append(row.input_ids)
            learned.append(row.input_ids[row.learned_nodes()])
    counts = [np.bincount(np.concatenate(ids)) for ids in (occur, learned)]
    return {
        "rows": len(dataset),
        "tokens": int(counts[0].sum()),
        "learned": int(counts[1].sum()),
        "digest": hashlib.sha256(b"".join(map(bytes, counts))).hexdigest(),
    }


if __name__ == "__main__":
    main()
