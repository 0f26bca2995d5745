"""Runs a model whose weights are read from its files layer by layer, in fp32.

At any time one decoder layer's weights are in memory, whatever the model's size. Knows
nothing of what the pass is for.

Shapes: B rows, S tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from fastchat.errors import CheckpointError
from fastchat.model.weight_files import WeightFiles


@dataclass(frozen=True, slots=True)
class Slot:
    """A weight of the network, and its name in the files."""

    module: nn.Module
    attribute: str
    name: str

    @property
    def value(self) -> nn.Parameter:
        """What the network computes with now."""
        value: nn.Parameter = getattr(self.module, self.attribute)
        return value

    def put(self, tensor: Tensor) -> None:
        """Gives the network a weight."""
        setattr(self.module, self.attribute, nn.Parameter(tensor, requires_grad=False))


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the network whose weights come and go together: a layer, or what is outside."""

    module: nn.Module
    slots: list[Slot]


def empty_model(folder: Path) -> Any:
    """The network that a folder's config describes, without weights.

    Raises:
        CheckpointError: there is no config that can be used.
    """
    try:
        with init_empty_weights(include_buffers=False):
            config = AutoConfig.from_pretrained(folder)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} does not describe a model: {error}") from error


def streamed_logits(
    model: nn.Module,
    weights: WeightFiles,
    rows: Tensor,
    when_filled: Callable[[Unit], None] | None = None,
) -> Tensor:
    """Logits (B, S, V) of rows (B, S), in fp32.

    Args:
        model: without weights, perhaps with an adapter that has its own.
        weights: where the others come from.
        rows: token ids.
        when_filled: called with each unit when its weights are there, before it is run.

    Raises:
        CheckpointError: weights are missing or damaged.
    """

    def fill(unit: Unit) -> None:
        for slot in unit.slots:
            if slot.value.is_meta:
                slot.put(weights.read(slot.name).float())
        if when_filled is not None:
            when_filled(unit)

    with ExitStack() as hooks:
        for unit in units(model):
            held = [slot for slot in unit.slots if slot.value.is_meta]
            before = unit.module.register_forward_pre_hook(lambda *_, unit=unit: fill(unit))
            after = unit.module.register_forward_hook(lambda *_, held=held: _empty(held))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        with torch.inference_mode():
            logits: Tensor = model(input_ids=rows, use_cache=False).logits
            return logits.clone()


def units(model: nn.Module) -> list[Unit]:
    """A model's decoder layers, and the modules outside them that have weights."""
    whole = set(getattr(model, "_no_split_modules", None) or ())
    return list(_units(model, "", whole))


def _units(module: nn.Module, prefix: str, whole: set[str]) -> Iterator[Unit]:
    is_layer = type(module).__name__ in whole
    slots = list(_slots(module, prefix, recurse=is_layer))
    if slots:
        yield Unit(module, slots)
    if not is_layer:
        for name, child in module.named_children():
            yield from _units(child, f"{prefix}{name}.", whole)


def _slots(module: nn.Module, prefix: str, *, recurse: bool) -> Iterator[Slot]:
    for path, _ in module.named_parameters(recurse=recurse, remove_duplicate=False):
        name = prefix + path
        if ".lora_" in name:  # an adapter's own
            continue
        owner, _, attribute = path.rpartition(".")
        published = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        yield Slot(module.get_submodule(owner), attribute, published)


def _empty(slots: list[Slot]) -> None:
    for slot in slots:
        slot.put(slot.value.data.to("meta"))
