"""Names, links and descriptions of models, for people who choose one from a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ModelInfo(NamedTuple):
    """What is said of a model."""

    simple_name: str
    link: str
    description: str


model_info: dict[str, ModelInfo] = {}


def register_model_info(
    full_names: Sequence[str], simple_name: str, link: str, description: str
) -> None:
    """Describes a model under each of its names."""
    for name in full_names:
        model_info[name] = ModelInfo(simple_name, link, description)


def get_model_info(name: str) -> ModelInfo:
    """The description of a model; a pointer to `register_model_info` for an unknown one."""
    unknown = ModelInfo(name, "", "No description; add one with register_model_info.")
    return model_info.get(name, unknown)


register_model_info(
    ["yuan2", "Yuan2-2B-hf", "Yuan2-2B-Janus-hf", "Yuan2-2B-Februa-hf", "Yuan2-2B-Mars-hf"],
    "Yuan2-2B",
    "https://huggingface.co/IEITYuan",
    "Yuan 2.0 with 2 billion parameters, by IEIT; Chinese and English",
)
register_model_info(
    ["Yuan2-51B-hf"],
    "Yuan2-51B",
    "https://huggingface.co/IEITYuan",
    "Yuan 2.0 with 51 billion parameters, by IEIT; Chinese and English",
)
register_model_info(
    ["Yuan2-102B-hf"],
    "Yuan2-102B",
    "https://huggingface.co/IEITYuan",
    "Yuan 2.0 with 102 billion parameters, by IEIT; Chinese and English",
)
