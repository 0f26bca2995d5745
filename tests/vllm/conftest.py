"""A small random Yuan2, and settings that keep vLLM small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import set_seed

import fastchat
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer
from fastchat.serve.processes import Service, Services, free_ports

for _name, _value in {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # vllm.LLM computes in this process
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Yuan2 in float32 with the demo's tokenizer: two layers, four heads."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")
    end = tokenizer.eos_token_id
    set_seed(3)
    config = YuanConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,  # vLLM on a CPU begins at 32 dimensions a head
        intermediate_size=160,
        num_hidden_layers=2,
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


FLAGS = (
    *("--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-num-seqs", "8"),
    *("--max-num-batched-tokens", "64"),
)
"""Of vLLM: exact, quick to start, and long prompts come in chunks."""


class WorkerProcess:
    """`fastchat.serve.vllm_worker` as users start it.

    Attributes:
        url: where it answers.
    """

    def __init__(self, services: Services, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._services = services
        flags = ["--model-path", str(folder), "--model-names", "theirs", "--no-register"]
        services.start(
            Service(
                "vllm_worker",
                "fastchat.serve.vllm_worker",
                [*flags, "--host", "127.0.0.1", "--port", str(port), *FLAGS],
                f"{self.url}/health",
                {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"},  # as without these tests
            )
        )

    def wait_until_ready(self) -> None:
        self._services.wait_until_ready(500)


@pytest.fixture(scope="session")
def worker_process(
    small_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """A worker that has been started; it takes a while until it is ready."""
    with Services(tmp_path_factory.mktemp("log")) as services:
        yield WorkerProcess(services, small_folder)
