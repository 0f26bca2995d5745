"""Golden models, and tiny random ones of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import set_seed

from fastchat.model import YuanConfig, YuanForCausalLM

EOD = 11


@pytest.fixture(scope="session", params=["tiny-a", "tiny-b"])
def golden(request: pytest.FixtureRequest, golden_dir: Path) -> Path:
    folder: Path = golden_dir / "yuan2" / request.param
    return folder


@pytest.fixture(params=["eager", "sdpa"])
def golden_model(request: pytest.FixtureRequest, golden: Path) -> YuanForCausalLM:
    return YuanForCausalLM.from_pretrained(golden, attn_implementation=request.param).eval()


@pytest.fixture(scope="session")
def random_model() -> Callable[..., YuanForCausalLM]:
    def make(**sizes: int | bool) -> YuanForCausalLM:
        set_seed(0)
        defaults = {
            "vocab_size": 61,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "pad_token_id": EOD,
            "bos_token_id": EOD,
            "eos_token_id": EOD,
        }
        model = YuanForCausalLM(YuanConfig(**(defaults | sizes)))
        with torch.no_grad():  # nothing at its default: biases and norms have to show
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return model.eval()

    return make
