"""Models and tokenizers. Importing this package registers Yuan2 with transformers' Auto classes.

import fastchat.model
model = transformers.AutoModelForCausalLM.from_pretrained(path_of_a_yuan2_checkpoint)
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
)

from fastchat.model.configuration_yuan import YuanConfig
from fastchat.model.forest import register_forest_attention
from fastchat.model.modeling_yuan import YuanForCausalLM, YuanModel
from fastchat.model.parallel_styles import register_parallel_styles
from fastchat.model.tokenization_yuan import YuanTokenizer
from fastchat.model.tokenizer_loading import load_tokenizer

AutoConfig.register("yuan", YuanConfig, exist_ok=True)
AutoModel.register(YuanConfig, YuanModel, exist_ok=True)
AutoModelForCausalLM.register(YuanConfig, YuanForCausalLM, exist_ok=True)
AutoTokenizer.register(YuanConfig, YuanTokenizer, exist_ok=True)
# The published files name LlamaTokenizer, which gives other ids today than they were made with.
TOKENIZER_MAPPING_NAMES["yuan"] = YuanTokenizer.__name__
MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS.add("yuan")
register_forest_attention()
register_parallel_styles()

__all__ = ["YuanConfig", "YuanForCausalLM", "YuanModel", "YuanTokenizer", "load_tokenizer"]
