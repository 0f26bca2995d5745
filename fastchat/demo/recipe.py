"""Makes the demo's base checkpoint: the tokenizer, and a tiny Yuan2 pretrained on plain text.

    python -m fastchat.demo.recipe --out DIR

The network learns the bundled prose, questions and answers as separate documents, each with
`<eod>` after it: it gets to know both languages, but no answer to any question. Takes some
minutes on two cores. The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from fastchat.model import YuanForCausalLM

HIDDEN_SIZE = 192
LAYERS = 2
HEADS = 6
INTERMEDIATE_SIZE = 384
CONTEXT = 512
INITIALIZER_RANGE = 0.02

ROW_TOKENS = 128
BATCH_ROWS = 16
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `--help` costs no heavy import."""
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.demo.recipe",
        description="Makes the demo's tokenizer and base checkpoint from the bundled texts.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the checkpoint")
    add("--epochs", type=int, default=24, help="passes over the texts (default 24)")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def make_base(folder: Path, *, epochs: int, seed: int) -> float:
    """Writes the whole checkpoint into a folder; returns the last losses' mean in nats."""
    import torch

    from fastchat.demo.tokenizer_recipe import write_tokenizer
    from fastchat.model import YuanConfig, YuanForCausalLM, YuanTokenizer

    tokenizer = YuanTokenizer(str(write_tokenizer(folder)))
    end = tokenizer.eos_token_id
    torch.manual_seed(seed)
    model = YuanForCausalLM(
        YuanConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN_SIZE,
            intermediate_size=INTERMEDIATE_SIZE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            initializer_range=INITIALIZER_RANGE,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
        )
    )
    loss = pretrain(model, tokenizer, epochs=epochs, seed=seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss


def pretrain(model: YuanForCausalLM, tokenizer: Any, *, epochs: int, seed: int) -> float:
    """Next-token training over the documents, warm-up and cosine; returns the last loss."""
    import torch

    batches = [batch for epoch in range(epochs) for batch in _batches(tokenizer, seed, epoch)]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=BETAS,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_up_and_cosine(step, len(batches))
    )
    model.train()
    recent: list[float] = []
    for step, documents in enumerate(batches, start=1):
        loss = model(**_tensors(documents, tokenizer.eos_token_id), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent = [*recent[-9:], loss.item()]
        if step % max(1, len(batches) // 20) == 0 or step == len(batches):
            print(f"step {step}/{len(batches)}  loss {sum(recent) / len(recent):.3f}", flush=True)
    return sum(recent) / len(recent)


def _warm_up_and_cosine(step: int, total: int) -> float:
    warm_up = max(1, total // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))


def _batches(tokenizer: Any, seed: int, epoch: int) -> Iterator[list[list[list[int]]]]:
    """Batches of rows of whole documents, each document ending in `<eod>`."""
    from fastchat.demo.corpus import pretraining_documents

    rows: list[list[list[int]]] = [[]]
    for document in pretraining_documents(seed * 1000 + epoch):
        ids = [*tokenizer.encode_ids(document, parse_special=False), tokenizer.eos_token_id]
        if sum(map(len, rows[-1])) + len(ids) > ROW_TOKENS:
            rows.append([])
        rows[-1].append(ids)
    for start in range(0, len(rows), BATCH_ROWS):
        yield rows[start : start + BATCH_ROWS]


def _tensors(rows: Sequence[Sequence[Sequence[int]]], pad_id: int) -> dict[str, Tensor]:
    """Packed rows: positions restart at each document; padding is a document of its own."""
    import torch

    shape = len(rows), max(sum(map(len, row)) for row in rows)
    ids = torch.full(shape, pad_id)
    labels = torch.full(shape, -100)
    positions = torch.arange(shape[1]).repeat(shape[0], 1)
    for index, row in enumerate(rows):
        start = 0
        for document in row:
            end = start + len(document)
            ids[index, start:end] = torch.tensor(document)
            labels[index, start + 1 : end] = ids[index, start + 1 : end]
            positions[index, start:] = torch.arange(shape[1] - start)
            start = end
        positions[index, start:] = torch.arange(shape[1] - start)
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the checkpoint and says where it is."""
    args = parse_args(argv)
    loss = make_base(args.out, epochs=args.epochs, seed=args.seed)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.2f} MB, loss {loss:.3f}")


if __name__ == "__main__":
    main()
