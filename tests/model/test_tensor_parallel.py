"""A model split over two processes computes what the whole one does, and is saved as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastchat.errors import SettingsError
from fastchat.model import YuanForCausalLM
from fastchat.model.parallel_styles import refuse_uneven_heads

# One run serves all tests.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tensor_parallel")]

SIZES = {"hidden_size": 32, "intermediate_size": 44, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., YuanForCausalLM]
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("split")
    random_model(**SIZES).save_pretrained(root / "model")
    random_model(**SIZES | {"num_attention_heads": 2}).save_pretrained(root / "uneven")
    return {name: root / name for name in ("model", "uneven", "out")}


@pytest.fixture(scope="module")
def found(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """What each of the two processes says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = Path(__file__).with_name("split_run.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, *folders.values()],
            env=os.environ | meeting | {"RANK": rank, "LOCAL_RANK": rank},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        outputs = [process.communicate(timeout=160) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, stderr
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in outputs]


@pytest.mark.parametrize("case", ["logits", "padded", "cached"])
def test_logits_are_those_of_the_whole(found: list[dict[str, Any]], case: str) -> None:
    assert max(process[case] for process in found) < 1e-5


def test_answers_and_gradients_are_those_of_the_whole(found: list[dict[str, Any]]) -> None:
    assert all(process["answers"] for process in found)
    assert max(process["gradients"] for process in found) < 1e-5


def test_each_process_holds_half(found: list[dict[str, Any]]) -> None:
    assert all(0.49 < process["share"] < 0.52 for process in found)  # biases of 61-row halves


def test_it_is_saved_in_the_published_layout(
    found: list[dict[str, Any]], folders: dict[str, Path]
) -> None:
    saved, original = (load_file(folders[name] / "model.safetensors") for name in ("out", "model"))
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], weight) for name, weight in original.items())
    configs = [json.loads((folders[name] / "config.json").read_text()) for name in ("out", "model")]
    assert configs[0] == configs[1]


def test_heads_that_cannot_be_shared_out_are_refused(found: list[dict[str, Any]]) -> None:
    assert all("2 attention heads cannot be split over 2" in process["uneven"] for process in found)


@pytest.mark.parametrize("heads", [32, 64])
def test_published_sizes_split_over_powers_of_two(heads: int) -> None:
    for processes in (2, 4, 8, 16):
        refuse_uneven_heads(heads, processes)
    with pytest.raises(SettingsError, match="Use 2 or 4 or 8 or 16"):
        refuse_uneven_heads(heads, 3)
