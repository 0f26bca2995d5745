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
from tests.train.conftest import TALKS, train_quietly, write_talks

# What several tests look at is made once, by the process that runs all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distributed")]

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

ADAPTER = {"max_steps": 3, "lora_r": 4, "lora_dropout": 0.0, "save_strategy": "no"}
ACCUMULATED = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
ZERO_2 = Path(fastchat.__file__).parents[1] / "playground" / "zero2_ds_woloading.json"
ZERO_3 = json.dumps(
    {
        # Every weight is spread, however small.
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        "bf16": {"enabled": "auto"},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
)
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero2": {"deepspeed": ZERO_2, **ACCUMULATED},
    "zero3": {"deepspeed": ZERO_3, "gradient_checkpointing": True},
    "fsdp": {
        "fsdp": "full_shard auto_wrap",
        "fsdp_transformer_layer_cls_to_wrap": "YuanDecoderLayer",
        **ACCUMULATED,
    },
}

RUNS = """
import importlib, json, os, signal, sys
import deepspeed, peft, fastchat.train.fit  # once for all runs: each is a fork of this process
from transformers import TrainerCallback

class Pause(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3:
            say(f"paused {os.getpid()}")
            signal.pause()

def say(what):
    sys.stdout.write(f"\\n{what}\\n")
    sys.stdout.flush()

if __name__ == "__main__":
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # each run meets at a port of its own
    for run in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            os.environ["MASTER_PORT"] = str(run["port"])
            entry = importlib.import_module("fastchat.train." + run["entry"])
            entry.train(run["flags"], [Pause()] if run["paused"] else [])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != (signal.SIGKILL if run["paused"] else 0):
            sys.exit("a run failed")
"""
"""Runs one after the other. One that is paused stands still between its third step and its
fourth, to be killed there."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talks(tmp_path_factory.mktemp("data") / "talks.json", TALKS * 3)


@pytest.fixture(scope="module")
def alone(
    tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What one process learns: all weights, and an adapter."""
    folder = tmp_path_factory.mktemp("alone")
    given = {"model_name_or_path": tiny_model, "data_path": data, **FLAGS}
    given["per_device_train_batch_size"] = 4
    train_quietly(output_dir=folder / "all", **given)
    train_quietly(output_dir=folder / "adapter", lora=True, **(given | ADAPTER))
    return {name: folder / name for name in ("all", "adapter")}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a script under torchrun, two processes by default; what it prints is read."""
    folder = tmp_path_factory.mktemp("errors")
    started = []

    def begin(
        script: Path,
        *arguments: str,
        launch: Sequence[str] = ("--standalone", "--nproc_per_node=2"),
    ) -> subprocess.Popen[str]:
        here = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        here["PYTHONPATH"] = str(ROOM.parents[1])
        here["TORCH_EXTENSIONS_DIR"] = str(folder / "compiled")
        with (folder / "errors.txt").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *launch, str(script), *arguments],
                cwd=folder,
                env={**os.environ, **here},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        started.append((process, folder / "errors.txt"))
        return process

    yield begin
    assert not (folder / "compiled").exists()  # DeepSpeed needs no compiler for any of this
    for process, errors in started:
        if process.poll() is None:
            process.terminate()  # a launcher takes its processes along
            process.communicate()
        assert process.returncode == 0, errors.read_text()[-5000:]


def arguments_of(model: Path, data: Path, **flags: Any) -> list[str]:
    values = {
        "model_name_or_path": model,
        "data_path": data,
        "per_device_train_batch_size": 2,
        **FLAGS,
        **flags,
    }
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def kill_when_paused(process: subprocess.Popen[str]) -> None:
    """Waits until both processes of a run stand still, and kills them."""
    assert process.stdout is not None
    paused: list[int] = []
    while len(paused) < 2:
        line = process.stdout.readline()
        assert line, "the launcher ended"
        if line.startswith("paused "):
            paused.append(int(line.split()[1]))
    for number in paused:
        os.kill(number, signal.SIGKILL)


@pytest.fixture(scope="module")
def together(
    start: Start, tiny_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What two processes learn: under each engine killed and resumed, and an adapter."""
    folder = tmp_path_factory.mktemp("together")
    script = folder / "runs.py"
    script.write_text(RUNS)
    runs = []
    for engine, flags in ENGINES.items():
        given = arguments_of(tiny_model, data, output_dir=folder / engine, **flags)
        runs.append({"entry": "train_mem", "flags": given, "paused": True})
        again = [*given, "--save_total_limit", "1"]
        runs.append({"entry": "train_mem", "flags": again, "paused": False})
    adapter = {"output_dir": folder / "adapter", "deepspeed": ZERO_3, **ADAPTER}
    given = arguments_of(tiny_model, data, **adapter)
    runs.append({"entry": "train_lora", "flags": given, "paused": False})
    ports = free_ports(len(runs))
    launched = start(
        script,
        json.dumps([run | {"port": port} for run, port in zip(runs, ports, strict=True)]),
    )
    for engine in ENGINES:
        kill_when_paused(launched)
        (folder / f"{engine}-killed.json").write_text(
            json.dumps(losses(folder / engine / "checkpoint-2"))
        )
        assert not (folder / engine / "config.json").exists()
    launched.communicate(timeout=150)
    return {path.name: path for path in folder.iterdir()}


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_killed_and_resumed_learn_as_one_that_never_stopped(
    engine: str, alone: dict[str, Path], together: dict[str, Path]
) -> None:
    one, two = alone["all"], together[engine]
    before = json.loads(together[f"{engine}-killed.json"].read_text())
    assert before == pytest.approx(losses(one)[:2], rel=1e-5)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert [path.name for path in two.glob("*-*")] == ["checkpoint-6"]
    assert not list(two.glob("*.tmp"))
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    assert {name: weight.shape for name, weight in weights[1].items()} == {
        name: weight.shape for name, weight in weights[0].items()
    }
    for name, weight in weights[0].items():
        assert float((weights[1][name] - weight).abs().mean()) < 1e-5, name


def test_an_adapter_trained_under_zero_3_is_whole(
    alone: dict[str, Path], together: dict[str, Path], tiny_model: Path
) -> None:
    from peft import PeftModel

    one, two = alone["adapter"], together["adapter"]
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
    alone: dict[str, Path], start: Start, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    meeting = ("--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1")
    nodes = [
        start(
            ROOM / "train_mem.py",
            *arguments_of(tiny_model, data, output_dir=tmp_path),
            launch=(*meeting, f"--master_port={port}", f"--node_rank={rank}"),
        )
        for rank in range(2)
    ]
    for node in nodes:
        node.communicate(timeout=150)
        assert node.returncode == 0
    assert losses(tmp_path) == pytest.approx(losses(alone["all"]), rel=1e-5)
    assert (tmp_path / "checkpoint-6" / "rng_state_1.pth").exists()
