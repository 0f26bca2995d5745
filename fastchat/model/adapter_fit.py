"""Puts a LoRA adapter on a model without weights, if it was made for that model.

Knows peft's files; the base is known by its weight files alone.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from fastchat.errors import CheckpointError
from fastchat.model.model_folder import read_json
from fastchat.model.weight_files import WeightFiles

_PREFIX = "base_model.model."


def with_adapter(model: Any, lora: Path, weights: WeightFiles) -> Any:
    """The model with the adapter on it; only the adapter has weights.

    Args:
        model: the base, without weights.
        lora: the adapter's folder.
        weights: the base's.

    Raises:
        CheckpointError: no adapter, one that cannot be merged, or another model's.
    """
    from peft import PeftConfig, PeftModel

    config = read_json(lora, "adapter_config.json")
    if config is None:
        raise CheckpointError(f"{lora} holds no adapter: there is no adapter_config.json.")
    extra = [key for key in ("modules_to_save", "trainable_token_indices") if config.get(key)]
    if config.get("peft_type") != "LORA" or extra:
        raise CheckpointError(
            f"The adapter {lora} is of type {config.get('peft_type')}"
            f"{' with ' + ', '.join(extra) if extra else ''}; plain LoRA can be merged here."
        )
    check_adapter(lora, weights)
    try:
        with warnings.catch_warnings():
            # It asks transformers under a name that will go in its next major release.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = PeftModel(model, PeftConfig.from_pretrained(str(lora)))
        _fill(adapted, lora)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(f"The adapter {lora} does not fit: {error}") from error
    lacking = [
        name for name, value in adapted.named_parameters() if ".lora_" in name and value.is_meta
    ]
    if lacking:
        raise CheckpointError(
            f"The adapter {lora} lacks weights that its config names: {', '.join(lacking[:3])}."
        )
    return adapted.eval()


def _fill(adapted: Any, lora: Path) -> None:
    """Gives an adapter its weights, and biases that were trained along.

    peft would move them to where the base's weights are, which is nowhere.
    """
    with WeightFiles(lora) as adapter:
        stored = {name: _stored_name(name) for name, _ in adapted.named_parameters()}
        values = {
            name: adapter.read(file).float() for name, file in stored.items() if file in adapter
        }
    adapted.load_state_dict(values, strict=False, assign=True)


def _stored_name(name: str) -> str:
    """A parameter's name in peft's files."""
    plain = name.replace(".default", "").replace(".base_layer.", ".")
    return plain.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def check_adapter(lora: Path, weights: WeightFiles) -> None:
    """Checks that each matrix of an adapter belongs to one of the base, by name and shape.

    Raises:
        CheckpointError: names the first few at fault.
    """
    faults = []
    with WeightFiles(lora) as adapter:
        for name in adapter.names:
            module, found, _ = name.removeprefix(_PREFIX).partition(".lora_")
            if not found or not name.endswith((".lora_A.weight", ".lora_B.weight")):
                continue
            if f"{module}.weight" not in weights:
                faults.append(f"{module}, which the base does not have")
                continue
            axis = 0 if name.endswith(".lora_B.weight") else 1
            there, here = adapter.shape(name)[axis], weights.shape(f"{module}.weight")[axis]
            if there != here:
                faults.append(f"{module} with {there} {('outputs', 'inputs')[axis]} for {here}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(
            f"The adapter {lora} is another model's: it adapts {'; '.join(faults[:3])}{more}.",
            hint="Give the model that adapter_config.json names as its base.",
        )
