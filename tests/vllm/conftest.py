"""A small random Yuan2, and settings that keep vLLM small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import set_seed

import fastchat
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer

for _name, _value in {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Yuan2 in float32 with the demo's tokenizer: three layers, four heads."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")
    end = tokenizer.eos_token_id
    set_seed(3)
    config = YuanConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=640,
        initializer_range=0.2,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
    )
    YuanForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
