"""Models and tokenizers. Importing this package registers Yuan2 with transformers' Auto classes.

The network is imported when it is first asked for: the engine has its own, and starts sooner
without transformers' modules for networks.

import fastchat.model
model = transformers.AutoModelForCausalLM.from_pretrained(path_of_a_yuan2_checkpoint)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
)

from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.later import register_later
from fastchat.model.tokenization_yuan import YuanTokenizer
from fastchat.model.tokenizer_loading import load_tokenizer

if TYPE_CHECKING:
    from fastchat.model.modeling_yuan import YuanForCausalLM, YuanModel

__all__ = ["YuanConfig", "YuanForCausalLM", "YuanModel", "YuanTokenizer", "load_tokenizer"]

AutoConfig.register("yuan", YuanConfig, exist_ok=True)
AutoTokenizer.register(YuanConfig, YuanTokenizer, exist_ok=True)
# The published files name LlamaTokenizer, which gives other ids today than they were made with.
TOKENIZER_MAPPING_NAMES["yuan"] = YuanTokenizer.__name__
MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS.add("yuan")
register_later()


def __getattr__(name: str) -> Any:
    """The networks' classes."""
    if name in ("YuanForCausalLM", "YuanModel"):
        from fastchat.model import modeling_yuan

        return getattr(modeling_yuan, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
