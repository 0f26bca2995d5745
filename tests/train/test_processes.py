"""Which engines go together, and how a process of several begins and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import fastchat
from fastchat.errors import SettingsError, TrainingError
from fastchat.train.distributed import check_agreement, check_combination, process_count
from fastchat.train.sharding import check_layers, check_sharded

ZERO_3 = {"zero_optimization": {"stage": 3}}
ENTRY = Path(fastchat.__file__).parent / "train" / "train_mem.py"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"deepspeed": ZERO_3, "load_best_model_at_end": True},
        {"deepspeed": {"zero_optimization": {"stage": 2}}, "auto_find_batch_size": True},
        {"deepspeed": ZERO_3, "optim": "adafactor"},
        {"fsdp": True, "load_best_model_at_end": True, "optim": "adamw_torch_fused"},
        {"save_only_model": True, "load_best_model_at_end": True, "optim": "adamw_bnb_8bit"},
    ],
)
def test_what_works_together_is_let_through(given: dict[str, Any]) -> None:
    check_combination(given, processes=2)


@pytest.mark.parametrize(
    ("given", "processes", "complaint"),
    [
        ({"deepspeed": ZERO_3, "fsdp": True}, 2, "--deepspeed and --fsdp.*Give one"),
        ({"fsdp": True}, 1, "this run has one.*torchrun"),
        ({"fsdp": True, "optim": "adafactor"}, 2, "--optim adafactor.*adamw_torch"),
        ({"fsdp": True, "optim": "paged_adamw_8bit"}, 2, "--optim paged_adamw_8bit"),
        (
            {"fsdp": True, "save_only_model": True, "load_best_model_at_end": True},
            2,
            "--save_only_model .*--load_best_model_at_end .* --fsdp",
        ),
        (
            {"deepspeed": ZERO_3, "save_only_model": True, "load_best_model_at_end": True},
            2,
            "--save_only_model .*--load_best_model_at_end .* --deepspeed",
        ),
        ({"save_on_each_node": True}, 2, "--save_on_each_node .* a folder that all nodes share"),
        ({"deepspeed": ZERO_3, "auto_find_batch_size": True}, 2, "--auto_find_batch_size.*ZeRO-3"),
    ],
)
def test_what_does_not_is_refused_with_what_to_use(
    given: dict[str, Any], processes: int, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        check_combination(given, processes)


def test_processes_are_counted_as_launchers_tell() -> None:
    assert process_count({}) == 1
    assert process_count({"WORLD_SIZE": "16"}) == 16


def test_one_process_agrees_with_itself() -> None:
    check_agreement(None, processes=1)


DISAGREE = """
import sys
from pathlib import Path
from torch import distributed
from fastchat.errors import SettingsError
from fastchat.train.distributed import check_agreement

rank, store, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
store = distributed.FileStore(store, 2)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
name = names[rank]
check_agreement(Path("out", "checkpoint-8"), 2)
try:
    check_agreement(Path("out", name) if name else None, 2)
except SettingsError as error:
    print(error)
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_that_see_different_checkpoints_say_so(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                DISAGREE,
                str(rank),
                str(tmp_path / "store"),
                "checkpoint-8",
                "",
            ],
            cwd=ENTRY.parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        assert "checkpoint-8 on process 0, none on process 1. Give --output_dir" in said


def test_a_model_that_every_process_holds_whole_is_found_out() -> None:
    frozen = nn.Linear(2, 2)
    frozen.requires_grad_(requires_grad=False)
    check_sharded(frozen)  # what is not trained may be left whole
    with pytest.raises(TrainingError, match=r"0\.weight is not sharded"):
        check_sharded(nn.Sequential(nn.Linear(2, 2)))


def test_layers_that_a_model_lacks_are_named() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 1, 4))
    check_layers(model, {})
    check_layers(model, {"transformer_cls_names_to_wrap": "TransformerEncoderLayer"})
    with pytest.raises(SettingsError, match=r"LlamaDecoderLayer.*has TransformerEncoderLayer\b"):
        check_layers(model, {"transformer_cls_names_to_wrap": "LlamaDecoderLayer"})


@pytest.mark.slow
def test_deepspeed_needs_no_launcher_for_one_process(
    tiny_model: Path, talks_file: Path, tmp_path: Path
) -> None:
    flags = {
        "model_name_or_path": tiny_model,
        "data_path": talks_file,
        "output_dir": tmp_path / "out",
        "deepspeed": '{"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}',
        "max_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }
    result = subprocess.run(
        [
            *(sys.executable, str(ENTRY)),
            *(text for name, value in flags.items() for text in (f"--{name}", str(value))),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    assert (tmp_path / "out" / "model.safetensors").exists()
