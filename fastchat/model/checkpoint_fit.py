"""Checks that a checkpoint's weights are those of the network that its config describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.modeling_utils import PreTrainedModel

from fastchat.errors import CheckpointError


def refuse_misfit(path: str, info: Mapping[str, Any], model: PreTrainedModel) -> None:
    """Refuses weights that are missing, unknown, misshapen or tied against the config.

    Args:
        path: of the checkpoint, for the message.
        info: transformers' loading report.
        model: what was loaded.

    Raises:
        CheckpointError: names the first few weights at fault.
    """
    misshaped = [
        f"{name} {tuple(there)} instead of {tuple(expected)}"
        for name, there, expected in info["mismatched_keys"]
    ]
    for problem, names in (
        ("lacks the weights", sorted(info["missing_keys"])),
        ("has weights that Yuan2 does not know", sorted(info["unexpected_keys"])),
        ("has weights of other shapes than config.json says", sorted(misshaped)),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise CheckpointError(
                f"The checkpoint {path} {problem}: {', '.join(names[:5])}{more}.",
                hint="Check that all weight files are there and belong to this config.json.",
            )
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else {}
    if any(name not in model.all_tied_weights_keys for name in tied or {}):
        raise CheckpointError(
            f"config.json in {path} says tie_word_embeddings: true, but lm_head.weight differs"
            " from model.embed_tokens.weight.",
            hint="Set tie_word_embeddings to false, or remove lm_head.weight.",
        )
