"""A checkpoint tuned to copy: what prompt lookup is for, made in a minute or two.

Rows are random text said twice; the second time is learned, by the first layer alone: the filter
shows it what came before each token. The other layers are computed in full but add zero, and the
embedding stays as it is, so any text can be copied.
"""

from __future__ import annotations

from pathlib import Path

import torch
from engine_models import FOLDER, WORDS, checkpoint
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastchat.model import YuanForCausalLM

HALF = 64  # tokens that are said twice
_ROWS = 8
_OTHERS = 2000  # ids that the next one is told apart from, beside those of the batch
_STEPS = 1000
_GOOD = 0.999


def copying_checkpoint(geometry: str) -> Path:
    """A checkpoint of the geometry in bfloat16 that repeats what stands in its prompt.

    Raises:
        RuntimeError: it has not learned it.
    """
    folder = FOLDER / f"{geometry}-copying"
    if (folder / "done").exists():
        return folder
    plain = checkpoint(geometry)
    model = YuanForCausalLM.from_pretrained(plain, dtype=torch.float32)
    layers = model.model.layers
    model.model.layers = layers[:1]
    _learn(model)
    model.model.layers = layers
    with torch.no_grad():
        for layer in layers[1:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.to(torch.bfloat16).save_pretrained(folder)
    for file in plain.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "done").touch()
    return folder


def twice(rows: int, seed: int) -> Tensor:
    """(rows, 2 * HALF) random text, then the same again."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(3, WORDS, (rows, HALF), generator=generator)
    return torch.cat([once, once], dim=1)


def _learn(model: YuanForCausalLM) -> None:
    embedding = model.get_input_embeddings().weight.requires_grad_(False)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=2e-3, weight_decay=0.0, fused=True)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=50)
    for step in range(_STEPS):
        ids = twice(_ROWS, step)
        loss, share = _loss(model, embedding, ids, step)
        if share > _GOOD:
            return
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        warmup.step()
    raise RuntimeError(f"{share:.1%} of a batch is copied after {_STEPS} steps")


def _loss(
    model: YuanForCausalLM, embedding: Tensor, ids: Tensor, seed: int
) -> tuple[Tensor, float]:
    """Of the tokens said again, among some others; and the share that would be said right."""
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, HALF:-1]
    generator = torch.Generator().manual_seed(seed)
    others = torch.randint(3, WORDS, (_OTHERS,), generator=generator)
    known, places = torch.unique(
        torch.cat([ids[:, HALF + 1 :].flatten(), others]), return_inverse=True
    )
    logits = states.flatten(0, 1) @ embedding[known].T
    places = places[: len(logits)]
    share = float((logits.detach().argmax(-1) == places).float().mean())
    return cross_entropy(logits, places), share
