"""One of two processes that share a model: compares it with the whole and prints what it finds.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python split_run.py MODEL UNEVEN OUT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

import fastchat.model  # noqa: F401  (registers Yuan2 with transformers)
from fastchat.errors import SettingsError


def load(folder: str, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, over the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def cached(model: Any, ids: Tensor) -> Tensor:
    """Logits of the last tokens, computed one by one behind five."""
    steps = [model(ids[:, :5], use_cache=True)]
    for place in range(5, ids.shape[1]):
        cache = steps[-1].past_key_values
        steps.append(model(ids[:, place : place + 1], past_key_values=cache))
    return torch.cat([step.logits for step in steps], dim=1)


def compare(whole: Any, split: Any) -> dict[str, Any]:
    ids = torch.randint(3, 61, (2, 17), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    with torch.inference_mode():
        found: dict[str, Any] = {
            "logits": difference(split(ids).logits, whole(ids).logits),
            "padded": difference(
                split(ids, attention_mask=mask).logits[1, 4:],
                whole(ids, attention_mask=mask).logits[1, 4:],
            ),
            "cached": difference(cached(split, ids), whole(ids).logits),
        }
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    found["answers"] = torch.equal(split.generate(ids, **options), whole.generate(ids, **options))
    for model in (whole, split):
        model(ids, labels=ids).loss.backward()
    found["gradients"] = max(
        difference(_whole(parameter.grad), expected.grad)
        for (_, parameter), expected in zip(
            split.named_parameters(), whole.parameters(), strict=True
        )
    )
    return found


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def main() -> None:
    folder, uneven, out = sys.argv[1:]
    torch.set_num_threads(1)
    halves = DistributedConfig(tp_size=2)
    whole, split = load(folder), load(folder, distributed_config=halves)
    found = compare(whole, split)
    parameters = list(split.parameters())
    found["share"] = sum(p.to_local().numel() for p in parameters if isinstance(p, DTensor)) / sum(
        p.numel() for p in parameters
    )
    try:
        load(uneven, distributed_config=halves)
    except SettingsError as error:
        found["uneven"] = str(error)
    split.save_pretrained(out)
    print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
