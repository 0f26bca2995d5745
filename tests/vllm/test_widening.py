"""What the golden networks are widened to computes the same. Needs no vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastchat.model import YuanForCausalLM
from tests.vllm.widening import widened_folder


@pytest.mark.parametrize("model", ["tiny-a", "tiny-b"])
@torch.no_grad()
def test_wider_heads_give_the_recorded_logits(golden_dir: Path, tmp_path: Path, model: str) -> None:
    golden = golden_dir / "yuan2" / model
    wide = YuanForCausalLM.from_pretrained(widened_folder(golden, tmp_path)).eval()
    assert wide.config.head_dim == 32
    expected = load_file(golden / "full.safetensors")
    logits = wide(expected["input_ids"]).logits / (2 if wide.config.tie_word_embeddings else 1)
    torch.testing.assert_close(logits, expected["logits"], atol=5e-4, rtol=0)
