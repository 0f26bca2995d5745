"""Trainers as FastChat's guides start them: as files, under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fastchat
from tests.train.conftest import Train

ENTRY = Path(fastchat.__file__).parent / "train" / "train_mem.py"


@pytest.mark.slow
def test_two_processes_train_as_one_does(
    fine_tune: Train, tiny_model: Path, talks_file: Path, tmp_path: Path
) -> None:
    # One step: at the end of an epoch of 7 rows, processes see some rows twice.
    flags = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1}
    fine_tune(output_dir=tmp_path / "one", per_device_train_batch_size=4, **flags)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        *(str(ENTRY), "--model_name_or_path", str(tiny_model), "--data_path", str(talks_file)),
        *("--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", "2"),
        *("--lr_scheduler_type", "constant", "--save_strategy", "no", "--use_cpu", "True"),
        *(text for name, value in flags.items() for text in (f"--{name}", str(value))),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    one = load_file(tmp_path / "one" / "model.safetensors")
    two = load_file(tmp_path / "two" / "model.safetensors")
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
