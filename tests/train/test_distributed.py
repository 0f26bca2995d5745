"""Runs on several processes, through the real torchrun: the curve of one process, killed or not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import fastchat
from tests.train.conftest import TALKS, Train, write_talks

pytestmark = pytest.mark.slow

ROOM = Path(fastchat.__file__).parent / "train"
FLAGS: dict[str, Any] = {
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
}
"""Twelve conversations in batches of four: six steps; the checkpoint at 2 is amid an epoch."""

ZERO_3 = {
    # Every weight is spread, however small.
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "bf16": {"enabled": "auto"},
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
ZERO_2 = Path(fastchat.__file__).parents[1] / "playground" / "zero2_ds_woloading.json"

PAUSE = """
import os, signal, sys
from transformers import TrainerCallback
from fastchat.train.run import train

class Pause(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3:
            sys.stdout.write(f"\\npaused {os.getpid()}\\n")
            sys.stdout.flush()
            signal.pause()

if __name__ == "__main__":
    train(callbacks=[Pause()])
"""
"""A run that stands still between its third step and its fourth, to be killed there."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_talks(tmp_path / "talks.json", TALKS * 3)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_model: Path, data: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a script under torchrun, two processes by default; keywords are flags."""
    started = []

    def begin(
        script: Path,
        *,
        launch: Sequence[str] = ("--standalone", "--nproc_per_node=2"),
        **flags: Any,
    ) -> subprocess.Popen[str]:
        values = {
            "model_name_or_path": tiny_model,
            "data_path": data,
            "per_device_train_batch_size": 2,
            **FLAGS,
            **flags,
        }
        command = [
            *(sys.executable, "-m", "torch.distributed.run", *launch, str(script)),
            *(text for name, value in values.items() for text in (f"--{name}", str(value))),
        ]
        here = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        here["PYTHONPATH"] = str(ROOM.parents[1])
        here["TORCH_EXTENSIONS_DIR"] = str(tmp_path / "compiled")
        with (tmp_path / "errors.txt").open("a") as errors:
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, **here},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()  # a launcher takes its processes along
            process.communicate()


def finish(process: subprocess.Popen[str], tmp_path: Path) -> None:
    process.communicate(timeout=150)
    assert process.returncode == 0, (tmp_path / "errors.txt").read_text()[-5000:]


def kill_between_steps(process: subprocess.Popen[str], tmp_path: Path) -> None:
    """Waits until both processes stand still, and kills them and their launcher."""
    assert process.stdout is not None
    paused: list[int] = []
    while len(paused) < 2:
        line = process.stdout.readline()
        assert line, (tmp_path / "errors.txt").read_text()[-5000:]
        if line.startswith("paused "):
            paused.append(int(line.split()[1]))
    for number in (process.pid, *paused):
        os.kill(number, signal.SIGKILL)
    process.communicate()


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp"])
def test_two_processes_killed_and_resumed_learn_as_one_that_never_stopped(
    engine: str,
    fine_tune: Train,
    start: Start,
    data: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "zero3.json").write_text(json.dumps(ZERO_3))
    (tmp_path / "pause.py").write_text(PAUSE)
    accumulated = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    flags: dict[str, Any] = {
        "ddp": {},
        "zero2": {"deepspeed": ZERO_2, **accumulated},
        "zero3": {"deepspeed": tmp_path / "zero3.json", "gradient_checkpointing": True},
        "fsdp": {
            "fsdp": "full_shard auto_wrap",
            "fsdp_transformer_layer_cls_to_wrap": "YuanDecoderLayer",
            **accumulated,
        },
    }[engine]
    one, two = tmp_path / "one", tmp_path / "two"
    fine_tune(data_path=data, output_dir=one, per_device_train_batch_size=4, **FLAGS)

    kill_between_steps(start(tmp_path / "pause.py", output_dir=two, **flags), tmp_path)
    assert losses(two / "checkpoint-2") == pytest.approx(losses(one)[:2], rel=1e-5)
    assert not (two / "config.json").exists()
    finish(start(ROOM / "train_mem.py", output_dir=two, save_total_limit=1, **flags), tmp_path)

    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert [path.name for path in two.glob("*-*")] == ["checkpoint-6"]
    assert not list(two.glob("*.tmp"))
    assert not (tmp_path / "compiled").exists()  # DeepSpeed needs no compiler for this
    alone, together = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert {name: weight.shape for name, weight in together.items()} == {
        name: weight.shape for name, weight in alone.items()
    }
    for name, weight in alone.items():
        assert float((together[name] - weight).abs().mean()) < 1e-5, name


def test_an_adapter_trained_under_zero_3_is_whole(
    fine_tune: Train,
    start: Start,
    tiny_model: Path,
    data: Path,
    tmp_path: Path,
) -> None:
    from peft import PeftModel

    config = tmp_path / "zero3.json"
    config.write_text(json.dumps(ZERO_3))
    flags = {"max_steps": 3, "lora_r": 4, "lora_dropout": 0.0, "save_strategy": "no"}
    one, two = tmp_path / "one", tmp_path / "two"
    fine_tune(
        lora=True, data_path=data, output_dir=one, **(FLAGS | flags), per_device_train_batch_size=4
    )
    finish(start(ROOM / "train_lora.py", output_dir=two, deepspeed=config, **flags), tmp_path)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)

    adapters = [load_file(folder / "adapter_model.safetensors") for folder in (one, two)]
    assert adapters[1].keys() == adapters[0].keys()
    for name, matrix in adapters[1].items():
        assert matrix.any(), name
        assert float((matrix - adapters[0][name]).abs().mean()) < 1e-5, name
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = base.model.layers[0].mlp.up_proj.weight.clone()
    merged = PeftModel.from_pretrained(base, str(two)).merge_and_unload()
    assert not torch.equal(merged.model.layers[0].mlp.up_proj.weight, before)


def test_two_nodes_with_a_process_each_learn_as_one_process(
    fine_tune: Train, start: Start, data: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one, two = tmp_path / "one", tmp_path / "two"
    fine_tune(data_path=data, output_dir=one, per_device_train_batch_size=4, **FLAGS)
    meeting = ("--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1")
    nodes = [
        start(
            ROOM / "train_mem.py",
            launch=(*meeting, f"--master_port={port}", f"--node_rank={rank}"),
            output_dir=two,
        )
        for rank in range(2)
    ]
    for node in nodes:
        finish(node, tmp_path)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert (two / "checkpoint-6" / "rng_state_1.pth").exists()
