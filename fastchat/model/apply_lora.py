"""Merges a LoRA adapter into the model that it was trained on.

    python -m fastchat.model.apply_lora --base-model-path BASE --target-model-path TARGET \
        --lora-path ADAPTER

Each weight is merged in fp32 and saved in the base's own format. Before anything is saved,
a few rows of tokens go through base + adapter and through the merged weights: if the logits
differ by more than fp32 rounding, nothing is. The model is read layer by layer and never
held whole. QLoRA adapters are merged into the base as published, not into its 4 bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.errors import CheckpointError, FastChatError

if TYPE_CHECKING:
    from torch import Tensor

    from fastchat.model.streamed_forward import Unit
    from fastchat.model.weight_files import ShardWriter, WeightFiles

ROUNDING = 1e-4
"""How far logits may be apart, as a share of the largest: thousands of fp32 roundings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    from fastchat.model.conversion_flags import add_folder_flags

    parser = argparse.ArgumentParser(
        prog="python -m fastchat.model.apply_lora", description="Merges a LoRA adapter."
    )
    add_folder_flags(parser, base="the model it was trained on", target="where to save")
    parser.add_argument("--lora-path", "--lora_path", "--lora", required=True, help="the adapter")
    args = parser.parse_args(argv)
    try:
        print(apply_lora(args.base, args.target, args.lora_path))
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def apply_lora(base_model_path: str, target_model_path: str, lora_path: str) -> str:
    """Saves base + adapter as one model; returns a line that says how exactly.

    Raises:
        CheckpointError: a folder is unusable, the adapter does not fit the base, or the merged
            weights compute something else.
        SettingsError: the target is something else's.
    """
    from fastchat.model.adapter_fit import with_adapter
    from fastchat.model.model_folder import local_folder
    from fastchat.model.new_folder import copy_small_files, new_folder
    from fastchat.model.streamed_forward import empty_model, streamed_logits
    from fastchat.model.weight_files import ShardWriter, WeightFiles

    base, lora = local_folder(base_model_path), local_folder(lora_path)
    sources = {"base": base, "adapter": lora}
    with (
        new_folder(target_model_path, "apply_lora", sources) as staging,
        WeightFiles(base) as weights,
    ):
        model = with_adapter(empty_model(base), lora, weights)
        rows = _rows(model.config.vocab_size)
        wanted = streamed_logits(model, weights, rows)
        writer, merger = ShardWriter(staging), _Merger(weights)
        merged = streamed_logits(model, weights, rows, lambda unit: merger(unit, writer))
        apart, limit = (merged - wanted).abs().max().item(), ROUNDING * wanted.abs().max().item()
        if not apart <= limit:
            raise CheckpointError(
                f"The merged weights compute other logits than base and adapter: {apart:.2e} apart"
                f" where rounding explains {limit:.2e}; nothing was saved."
            )
        merger.check_complete()
        writer.finish()
        copy_small_files(base, staging)
        with WeightFiles(staging) as saved:
            rounded = (streamed_logits(empty_model(staging), saved, rows) - wanted).abs().max()
    return (
        f"{target_model_path}: merged == base + adapter; logits up to {wanted.abs().max():.3g}"
        f" differ by at most {apart:.1e} in fp32, by {rounded:.1e} as saved"
    )


class _Merger:
    """Merges a unit's adapters into its weights and hands these to a writer."""

    def __init__(self, weights: WeightFiles) -> None:
        self._weights = weights
        self._written: set[str] = set()

    def __call__(self, unit: Unit, writer: ShardWriter) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in unit.module.modules():
            if isinstance(module, BaseTunerLayer) and not module.merged:
                try:
                    module.merge(safe_merge=True)
                except ValueError as error:
                    raise CheckpointError(f"The adapter cannot be merged: {error}") from error
        for slot in unit.slots:
            stored = self._weights.read(slot.name).dtype
            writer.add(slot.name, slot.value.data.to(stored))
            self._written.add(slot.name)

    def check_complete(self) -> None:
        left = sorted(set(self._weights.names) - self._written)
        if left:
            raise CheckpointError(
                f"config.json describes a model without {', '.join(left[:5])}, found in its files."
            )


def _rows(vocabulary: int) -> Tensor:
    """A few rows of tokens, the same every time."""
    import torch

    return torch.randint(0, vocabulary, (2, 16), generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    sys.exit(main())
