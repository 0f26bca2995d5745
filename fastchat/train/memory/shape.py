"""A Yuan2 network's sizes and parameter counts, as far as memory is concerned.

Knows nothing of training. Sizes come from config.json or from the table of published models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.errors import CheckpointError, SettingsError, UnsupportedModelError

VOCABULARY = 135040
"""Rows of the published embedding: the tokenizer's 134,958 tokens and padding."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a Yuan2 network.

    Attributes:
        name: how the model is called in messages and commands.
        hidden: width H of the residual stream.
        intermediate: width F of the feed-forward part.
        layers: decoder layers L.
        heads: attention heads.
        vocabulary: rows V of the embedding.
        tied: embedding and output matrix are one.
        folder: where the model lies, if it was read from there.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int = VOCABULARY
    tied: bool = True
    folder: str | None = None

    @property
    def head(self) -> int:
        """Parameters of the output matrix, which may be the embedding too."""
        return self.vocabulary * self.hidden

    @property
    def linears(self) -> int:
        """Parameters of all layers' linear projections: q, k, v, o, gate, up and down."""
        square, wide = self.hidden**2, self.hidden * self.intermediate
        return self.layers * (4 * square + 3 * wide)

    @property
    def filters(self) -> int:
        """Parameters of all layers' convolutions: H to H/2 and back, two taps, with biases."""
        hidden, half = self.hidden, self.hidden // 2
        return self.layers * (4 * half * hidden + half + hidden)

    @property
    def norms(self) -> int:
        """Parameters of the norms: three a layer, and the last one."""
        return (3 * self.layers + 1) * self.hidden

    @property
    def embeddings(self) -> int:
        """Parameters of embedding and output matrix together."""
        return self.head if self.tied else 2 * self.head

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.embeddings + self.linears + self.filters + self.norms

    def widths(self, module: str) -> tuple[int, int]:
        """Inputs and outputs of one of a layer's matrices; a convolution reads two tokens.

        Raises:
            SettingsError: there is no such matrix.
        """
        hidden, wide = self.hidden, self.intermediate
        known = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (hidden, hidden))
        known |= {"gate_proj": (hidden, wide), "up_proj": (hidden, wide)}
        known |= {"down_proj": (wide, hidden)}
        known |= {"conv1": (2 * hidden, hidden // 2), "conv2": (hidden, hidden)}
        if module not in known:
            raise SettingsError(
                f"--lora-target-modules names {module!r}; known are {', '.join(known)}.",
                param="lora_target_modules",
            )
        return known[module]

    def adapter(self, rank: int, modules: Iterable[str]) -> int:
        """Parameters of a LoRA adapter: rank x (inputs + outputs) for each adapted matrix."""
        return self.layers * rank * sum(sum(self.widths(module)) for module in modules)


PUBLISHED = {
    "2b": ModelShape("2b", hidden=2048, intermediate=8192, layers=24, heads=32),
    "51b": ModelShape("51b", hidden=8192, intermediate=32768, layers=42, heads=64),
    "102b": ModelShape("102b", hidden=8192, intermediate=32768, layers=84, heads=64),
}

_FIELDS = {
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "vocabulary": "vocab_size",
}


def find_shape(model: str) -> ModelShape:
    """The sizes of a published model, or of one in a folder.

    Args:
        model: 2b, 51b, 102b, or a folder with config.json.

    Raises:
        SettingsError: neither.
        CheckpointError: config.json cannot be read, or lacks a size.
        UnsupportedModelError: another network.
    """
    if model.lower() in PUBLISHED:
        return PUBLISHED[model.lower()]
    path = Path(model) / "config.json"
    if not path.is_file():
        raise SettingsError(
            f"--model is {model!r}: neither {', '.join(PUBLISHED)} nor a folder with config.json.",
            param="model",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return _read(model, path, config)


def _read(name: str, path: Path, config: Mapping[str, Any]) -> ModelShape:
    experts = [key for key, value in config.items() if value and ("moe" in key or "expert" in key)]
    if config.get("model_type") != "yuan" or experts or config.get("use_shareqk"):
        raise UnsupportedModelError(
            f"{path} describes a {config.get('model_type')!r} network"
            f"{' with ' + ', '.join(experts) if experts else ''}; the planner knows Yuan 2.0.",
            hint="Give the folder of a dense Yuan2 model, or 2b, 51b or 102b.",
        )
    sizes = {field: config.get(key) for field, key in _FIELDS.items()}
    for field, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{path} has {_FIELDS[field]}: {value!r}; a whole number of at least 1 is needed."
            )
    tied = config.get("tie_word_embeddings", True) is not False
    counts = {field: int(value or 0) for field, value in sizes.items()}
    return ModelShape(name=path.parent.name, tied=tied, folder=name, **counts)
