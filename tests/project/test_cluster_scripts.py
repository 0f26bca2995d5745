"""The Slurm scripts, with a Slurm of two machines that are this one: runs meet, end and go on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from fastchat.serve.processes import free_ports

SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
for number in 0 1; do
    SLURM_NODEID=$number SLURM_LOCALID=$number "$@" &
    tasks+=("$!")
done
trap 'kill "${tasks[@]}"' TERM
status=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2>/dev/null; do wait "$task" || status=$?; done
done
exit "$status"
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in
show) echo 127.0.0.1; echo 127.0.0.1 ;;
requeue) echo "$2" >> "$REQUEUED" ;;
esac
"""
TALKS = [
    {
        "id": f"{number}",
        "conversations": [
            {"from": "human", "value": f"{number}+1=?"},
            {"from": "gpt", "value": f"{number + 1}"},
        ],
    }
    for number in range(16)
]


def free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two machines, each of them this one."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text, "utf-8")
        (commands / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "REQUEUED": str(tmp_path / "requeued"),
        "OMP_NUM_THREADS": "1",
        "GPUS": "1",
        "LOGDIR": "",
        "SLURM_JOB_ID": str(next(port for port in range(22_000, 30_000) if free(port)) - 20_000),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURMD_NODENAME": "127.0.0.1",
    }


def start(root: Path, job: Mapping[str, str], log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            ["bash", *command],
            cwd=root,
            env=job,
            stdout=output,
            stderr=output,
        )


def until(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.02)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """As Slurm ends a job: every process that came of it, torchrun's own sessions included."""
    with contextlib.suppress(psutil.NoSuchProcess):
        job = psutil.Process(process.pid)
        for each in [job, *job.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_run_on_two_machines_is_set_back_and_goes_on(root, slurm, tmp_path):
    data, out, log = tmp_path / "talks.json", tmp_path / "out", tmp_path / "log"
    data.write_text(json.dumps(TALKS), "utf-8")
    flags = {
        "model_name_or_path": root / "fastchat" / "demo" / "checkpoint",
        "data_path": data,
        "output_dir": out,
        "max_steps": 120,
        "save_strategy": "steps",
        "save_steps": 20,
        "save_total_limit": 2,
        "per_device_train_batch_size": 1,
        "report_to": "none",
        "use_cpu": True,
    }
    command = ["scripts/cluster/train.sbatch", "fastchat/train/train_yuan2.py"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]

    process = start(root, slurm, log, *command)
    try:
        until(lambda: any(out.glob("checkpoint-*")), process, log)
        process.send_signal(signal.SIGUSR1)
        requeued = Path(slurm["REQUEUED"])
        until(requeued.exists, process, log)
    finally:
        kill_all(process)
    assert requeued.read_text("utf-8").split() == [slurm["SLURM_JOB_ID"]]
    assert not (out / "config.json").exists()  # it had not come to its end

    again = start(root, {**slurm, "SLURM_RESTART_COUNT": "1"}, log, *command)
    try:
        assert again.wait(300) == 0, log.read_text("utf-8")
    finally:
        kill_all(again)
    assert re.search(r"resuming from .*checkpoint-\d+", log.read_text("utf-8"))
    state = json.loads((out / "checkpoint-120" / "trainer_state.json").read_text("utf-8"))
    assert state["global_step"] == 120
    assert (out / "config.json").exists()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_workers_of_a_job_register_and_leave(root, slurm, tmp_path):
    controller, api = free_ports(2)
    worker = next(port for port in range(21_002, 30_000, 2) if free(port) and free(port + 1))
    job = {
        **slurm,
        "FASTCHAT_CONTROLLER_TOKEN": "of this test",
        "CONTROLLER_PORT": str(controller),
        "WORKER_PORT": str(worker),
        "API_PORT": str(api),
    }
    log = tmp_path / "log"
    checkpoint = root / "fastchat" / "demo" / "checkpoint"
    script = "scripts/cluster/serve.sbatch"
    process = start(root, job, log, script, "--model-path", str(checkpoint), "--device", "cpu")
    try:
        health = f"http://127.0.0.1:{controller}/health"
        until(lambda: _asked(health).get("workers") == 2, process, log)
        models = _asked(f"http://127.0.0.1:{api}/v1/models")
        assert len(models["data"]) == 1
        process.terminate()
        process.wait(60)
        assert "has left" in log.read_text("utf-8")
        assert not _asked(health)
    finally:
        kill_all(process)


@pytest.mark.parametrize("script", ["train.sbatch", "serve.sbatch", "train_node.sh"])
def test_what_is_missing_is_said(root, slurm, tmp_path, script):
    away = {**slurm, "SLURM_SUBMIT_DIR": str(tmp_path)}
    path = root / "scripts" / "cluster" / script
    result = subprocess.run(
        ["bash", str(path)], env=away, cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")


def _asked(url: str) -> dict[str, object]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            found = json.load(answer)
    except (urllib.error.URLError, OSError):
        return {}
    assert isinstance(found, dict)
    return found
