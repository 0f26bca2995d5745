"""FastChat from PyPI as a peer: a model for it, its chain, and what its model alone takes.

Run by the peer's own Python, this file knows nothing of the project:

    PEER_PYTHON playground/benchmark/serve_peer.py write FOLDER CONFIG_JSON TOKENIZER_MODEL
    PEER_PYTHON playground/benchmark/serve_peer.py alone FOLDER DTYPE
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_processes import Chain

TEMPLATE = "yuan2"
_ASKED = 20


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What makes the peer faster or slower.

    Attributes:
        threads: that torch computes with.
        limit: requests that it computes at once.
    """

    dtype: str
    threads: int
    limit: int

    def __str__(self) -> str:
        return f"{self.dtype}, {self.threads} threads, limit {self.limit}"


@dataclass(frozen=True, slots=True)
class Peer:
    """An environment with FastChat from PyPI, and the folder of a model for it."""

    python: str
    model: Path

    def write(self, like: Path) -> None:
        """Makes a random Llama of the shape of another model, with its tokenizer."""
        config = json.loads((like / "config.json").read_text(encoding="utf-8"))
        shape = {name: config[name] for name in _SHAPE}
        self._run("write", json.dumps(shape), str(like / "tokenizer.model"))

    def alone_s(self, settings: PeerSettings) -> float:
        """Seconds that one token takes without servers."""
        return float(self._run("alone", settings.dtype, threads=settings.threads))

    def _run(self, what: str, *arguments: str, threads: int = 1) -> str:
        command = [self.python, str(Path(__file__).resolve()), what, str(self.model), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=self.model.parent,
        )
        if done.returncode:
            raise SystemExit(f"the peer failed to {what}:\n{done.stderr[-2000:]}")
        return done.stdout.splitlines()[-1] if done.stdout else ""

    def serve(self, chain: Chain, settings: PeerSettings) -> None:
        """Starts its controller, a worker and its API server."""
        from serve_processes import free_port

        ports = [str(free_port()) for _ in range(3)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        host = ["--host", "127.0.0.1", "--port"]
        more: dict[str, Any] = {
            "python": self.python,
            "environment": {"OMP_NUM_THREADS": str(settings.threads), "HF_HUB_OFFLINE": "1"},
        }
        controller = ["-m", "fastchat.serve.controller", *host, ports[0]]
        chain.start("peer-controller", controller, f"{urls[0]}/test_connection", **more)
        chain.start(
            "peer-worker",
            [
                *("-m", "fastchat.serve.model_worker", *host, ports[1]),
                *("--controller-address", urls[0], "--worker-address", urls[1]),
                *("--model-path", str(self.model), "--model-names", "peer", "--device", "cpu"),
                *("--dtype", settings.dtype, "--conv-template", TEMPLATE),
                *("--limit-worker-concurrency", str(settings.limit)),
            ],
            f"{urls[1]}/docs",
            **more,
        )
        api = ["-m", "fastchat.serve.openai_api_server", *host, ports[2]]
        chain.start("peer-api", [*api, "--controller-address", urls[0]], f"{urls[2]}/docs", **more)
        chain.url = urls[2]


_SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


# What follows runs in the peer's environment.


def _write(folder: Path, shape: dict[str, int], tokenizer: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(**shape, max_position_embeddings=8192, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(tokenizer, folder / "tokenizer.model")
    LlamaTokenizerFast(str(folder / "tokenizer.model")).save_pretrained(folder)


def _alone(folder: Path, dtype: str) -> float:
    import torch
    from fastchat.serve.inference import generate_stream
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    times = []
    for number in range(_ASKED):
        params = {"prompt": f"{number:06d} tell me more of it", "temperature": 0.0}
        began = time.perf_counter()
        for _ in generate_stream(
            model, tokenizer, {**params, "max_new_tokens": 1, "echo": False}, "cpu", 2048
        ):
            pass
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, shape, tokenizer]:
            _write(Path(folder), json.loads(shape), Path(tokenizer))
        case ["alone", folder, dtype]:
            print(_alone(Path(folder), dtype))
        case _:
            raise SystemExit(__doc__)
