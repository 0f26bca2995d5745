"""The golden networks with wider heads: vLLM's attention on a CPU begins at 32 dimensions a head.

Every state is written twice, which no norm notices; every matrix reads the first copy. A head's
dimensions are spread so that each pair still turns at its own pace, and the rest of the head is
zero. Nothing is computed that was not before.

Shapes: H hidden, N heads, D = H / N, each of them before widening.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor


def widened_folder(golden: Path, folder: Path) -> Path:
    """Writes a golden checkpoint with states and heads twice as wide."""
    config = json.loads((golden / "config.json").read_text())
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    weights = load_file(golden / "model.safetensors")
    wider = {name: _widened(name, weight, head_dim) for name, weight in weights.items()}
    if not config["tie_word_embeddings"]:
        wider["lm_head.weight"] = _reading(weights["lm_head.weight"])
    kept = {name: weight.contiguous() for name, weight in wider.items() if "inv_freq" not in name}
    save_file(kept, folder / "model.safetensors")
    changed: dict[str, Any] = {"hidden_size": 2 * config["hidden_size"]}
    (folder / "config.json").write_text(json.dumps(config | changed))
    (folder / "generation_config.json").write_bytes(
        (golden / "generation_config.json").read_bytes()
    )
    return folder


def _widened(name: str, weight: Tensor, head_dim: int) -> Tensor:
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return _turning(_reading(weight), head_dim)
    if name.endswith("v_proj.weight"):
        return _heads_filled(_reading(weight), head_dim)
    if name.endswith("o_proj.weight"):
        return _written_twice(_heads_filled(weight.T, head_dim).T)
    if name.endswith(("up_proj.weight", "gate_proj.weight")):
        return _reading(weight)
    if "conv1" in name:  # its outputs are no states: zeros fill them up
        whole = _reading(weight) if weight.dim() > 1 else weight
        return torch.cat([whole, torch.zeros_like(whole)])
    if name.endswith("conv2.weight"):
        return _written_twice(_reading(weight))
    if name.endswith("embed_tokens.weight"):
        return torch.cat([weight, weight], dim=1)  # (V, 2H)
    if name == "lm_head.weight":  # tied: twice the logits, and the same best token
        return torch.cat([weight, weight], dim=1)
    return _written_twice(weight)  # norms, biases, down_proj


def _reading(weight: Tensor) -> Tensor:
    """(out, in, ...) -> (out, 2 in, ...): the second copy is not looked at."""
    return torch.cat([weight, torch.zeros_like(weight)], dim=1)


def _written_twice(weight: Tensor) -> Tensor:
    """(out, ...) -> (2 out, ...)."""
    return torch.cat([weight, weight])


def _heads_filled(weight: Tensor, head_dim: int) -> Tensor:
    """(N D, in) -> (2 N D, in): each head followed by as many zeros."""
    heads = rearrange(weight, "(n d) i -> n d i", d=head_dim)
    return torch.cat([heads, torch.zeros_like(heads)], dim=1).flatten(0, 1)


def _turning(weight: Tensor, head_dim: int) -> Tensor:
    """(N D, in) -> (2 N D, in): pair i of a head becomes pair 2 i of a head of 2 D dimensions.

    Queries and keys grow by the fourth root of 2 each, for attention divides by the root of 2 D.
    """
    pairs = rearrange(weight, "(n half d) i -> n half d i", half=2, d=head_dim // 2)
    spread = torch.stack([pairs, torch.zeros_like(pairs)], dim=3)  # beside each pair an idle one
    return 2**0.25 * rearrange(spread, "n half d idle i -> (n half d idle) i")
