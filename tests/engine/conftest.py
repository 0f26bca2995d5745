"""A small Yuan2 with random weights and the demo's tokenizer, as a folder and as an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from transformers import set_seed

import fastchat
from fastchat.engine.loading import load_served_model
from fastchat.engine.served import ServedModel
from fastchat.engine.settings import EngineSettings
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")
    end = tokenizer.eos_token_id
    set_seed(1)
    config = YuanConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
    )
    YuanForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ENGINES = {
    "plain": EngineSettings(batched=False),
    "torch": EngineSettings(native=False, cache_tokens=1024),
    "native": EngineSettings(cache_tokens=1024, threads=1),
}


@pytest_asyncio.fixture(params=ENGINES)
async def served(request: pytest.FixtureRequest, tiny_folder: Path) -> AsyncIterator[ServedModel]:
    """The tiny model behind every engine that there is for it."""
    settings = ENGINES[request.param]
    served = load_served_model(str(tiny_folder), device="cpu", engine=settings)
    yield served
    await served.engine.close()
