"""DeepSpeed's settings are read, and mended where today's DeepSpeed or a user would trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastchat.errors import SettingsError
from fastchat.train.deepspeed_config import mend, read_deepspeed_config, zero_stage

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


def test_zero_3_saves_weights_that_can_be_loaded() -> None:
    gathered = {
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
    }
    assert mend(gathered) == (gathered, [])
    for given in (
        {"zero_optimization": {"stage": 3}},
        {
            "zero_optimization": gathered["zero_optimization"]
            | {"stage3_gather_16bit_weights_on_model_save": False}
        },
    ):
        settings, notes = mend(given)
        assert settings == gathered
        assert len(notes) == 1
        assert "stage3_gather_16bit_weights_on_model_save is set" in notes[0]


@pytest.mark.parametrize(
    ("settings", "stage"),
    [
        (None, 0),
        ("auto", 0),
        ({}, 0),
        ({"zero_optimization": {}}, 0),
        ({"zero_optimization": True}, 0),
        ({"zero_optimization": {"stage": 2}}, 2),
    ],
)
def test_the_stage_is_read_from_whatever_is_given(settings: Any, stage: int) -> None:
    assert zero_stage(settings) == stage


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
