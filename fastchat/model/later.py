"""Yuan2's network with transformers: what stands in for it until it is imported, and then itself.

transformers' modules for networks take longer to import than all else that serving needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from transformers import AutoModel, AutoModelForCausalLM

from fastchat.model.configuration_yuan import YuanConfig


def register_later() -> None:
    """Has the Auto classes import the network when they are first asked for one."""
    AutoModel.register(YuanConfig, _later("YuanModel"), exist_ok=True)
    AutoModelForCausalLM.register(YuanConfig, _later("YuanForCausalLM"), exist_ok=True)


def register_network(base: type, causal: type) -> None:
    """Puts the real classes in their places, and makes known what they compute with."""
    from fastchat.model.forest import register_forest_attention

    AutoModel.register(YuanConfig, base, exist_ok=True)
    AutoModelForCausalLM.register(YuanConfig, causal, exist_ok=True)
    register_forest_attention()
    _register_parallel_styles()


def _register_parallel_styles() -> None:
    # vLLM, which splits models in its own way, pins a release of transformers that lacks the parts.
    with suppress(ImportError):
        from fastchat.model.parallel_styles import register_parallel_styles

        register_parallel_styles()


def _later(name: str) -> type:
    """A class that knows the two ways in which the Auto classes make a model."""

    def real() -> Any:
        from fastchat.model import modeling_yuan

        return getattr(modeling_yuan, name)

    def from_pretrained(_: type, *args: Any, **options: Any) -> Any:
        return real().from_pretrained(*args, **options)

    def from_config(_: type, *args: Any, **options: Any) -> Any:
        return real()._from_config(*args, **options)

    return type(
        name,
        (),
        {
            "config_class": YuanConfig,
            "from_pretrained": classmethod(from_pretrained),
            "_from_config": classmethod(from_config),
        },
    )
