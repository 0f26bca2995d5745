"""Settings meet the machine: followed, left out with a note, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastchat.errors import SettingsError
from fastchat.train.deepspeed_config import mend, read_deepspeed_config
from fastchat.train.machine import Machine, fit_to

CPU = Machine(accelerator=False, tf32=False, bf16=False)
OLD_GPU = Machine(accelerator=True, tf32=False, bf16=False)
GPU = Machine(accelerator=True, tf32=True, bf16=True)


@pytest.mark.parametrize(
    ("machine", "given", "left", "notes"),
    [
        (CPU, {}, {"use_cpu": True}, []),
        (CPU, {"tf32": True}, {"use_cpu": True}, ["--tf32 has no effect"]),
        (CPU, {"tf32": False}, {"use_cpu": True, "tf32": False}, []),
        (CPU, {"bf16": True}, {"use_cpu": True, "bf16": True}, ["--bf16 on the CPU"]),
        (OLD_GPU, {"tf32": True, "fp16": True}, {"fp16": True}, ["--tf32 has no effect"]),
        (GPU, {"tf32": True, "bf16": True}, {"tf32": True, "bf16": True}, []),
        (OLD_GPU, {"bf16": True}, {}, ["--bf16 has no effect"]),
        (GPU, {"use_cpu": True, "tf32": True}, {"use_cpu": True}, ["--tf32 has no effect"]),
    ],
)
def test_what_the_machine_cannot_do_is_left_out(
    machine: Machine, given: dict[str, Any], left: dict[str, Any], notes: list[str]
) -> None:
    values = dict(given)
    said = fit_to(machine, values)
    assert values == left
    assert len(said) == len(notes)
    assert all(text.startswith(start) for text, start in zip(said, notes, strict=True))


@pytest.mark.parametrize(
    ("machine", "given", "complaint"),
    [
        (CPU, {"fp16": True}, "--fp16 does not work on the CPU.*--bf16 True"),
        (CPU, {"fsdp": True}, "--fsdp does not work on the CPU"),
        (GPU, {"fsdp": True, "use_cpu": True}, "--fsdp does not work on the CPU"),
        (CPU, {"flash_attn": True}, "--flash_attn does not work on the CPU"),
    ],
)
def test_what_would_mislead_is_refused(
    machine: Machine, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        fit_to(machine, dict(given))


GUIDE_SETTINGS = {
    "zero_optimization": {"stage": 2, "allgather_partitions": True},
    "bf16": {
        "enabled": "auto",
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 1000,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "train_batch_size": "auto",
}


def test_the_guides_deepspeed_settings_lose_what_bfloat16_never_needed() -> None:
    settings, notes = mend(GUIDE_SETTINGS)
    assert settings == GUIDE_SETTINGS | {"bf16": {"enabled": "auto"}}
    assert len(notes) == 1
    assert "hysteresis" in notes[0]


@pytest.mark.parametrize(
    "settings", [{}, {"bf16": {"enabled": True}}, {"fp16": {"loss_scale": 0}}, {"bf16": "auto"}]
)
def test_other_deepspeed_settings_stay(settings: dict[str, Any]) -> None:
    assert mend(settings) == (settings, [])


def test_deepspeed_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastchat.train.deepspeed_config.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"DeepSpeed is not installed.*'train' extra"):
        read_deepspeed_config(str(tmp_path / "ds.json"))


def test_deepspeed_settings_are_read_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastchat.train.deepspeed_config.find_spec", lambda name: name)
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(GUIDE_SETTINGS))
    assert read_deepspeed_config(str(path))[0]["bf16"] == {"enabled": "auto"}
    assert read_deepspeed_config("{}") == ({}, [])
    path.write_text("[1]")
    with pytest.raises(SettingsError, match="does not hold a JSON object"):
        read_deepspeed_config(str(path))
    path.write_text("{")
    with pytest.raises(SettingsError, match="not valid JSON"):
        read_deepspeed_config(str(path))
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_deepspeed_config(str(tmp_path / "nowhere.json"))
