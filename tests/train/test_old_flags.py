"""Flags of older transformers: each becomes what says the same today, or a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastchat.errors import SettingsError
from fastchat.train.flags import Flag, flag
from fastchat.train.old_flags import modernise, old_flags
from fastchat.train.settings import Settings, parse_settings

NEEDED = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]


def parse(*argv: str) -> Settings:
    return parse_settings([*NEEDED, *argv])


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (["--evaluation_strategy", "no"], {"eval_strategy": "no"}),
        (["--evaluation-strategy", "no"], {"eval_strategy": "no"}),
        (["--warmup_ratio", "0.03"], {"warmup_steps": 0.03}),
        (["--per_gpu_train_batch_size", "3"], {"per_device_train_batch_size": 3}),
        (["--no_cuda"], {"use_cpu": True}),
        (["--no_cuda", "False"], {"use_cpu": False}),
        (["--group_by_length", "True"], {"train_sampling_strategy": "group_by_length"}),
        (["--group_by_length", "False"], {}),
        (["--adafactor", "True"], {"optim": "adafactor"}),
        (["--gradient_checkpointing"], {"activation_checkpointing": True}),
        (["--gradient_checkpointing", "False"], {"activation_checkpointing": False}),
        (
            ["--gradient_checkpointing_kwargs", '{"use_reentrant": true}'],
            {"activation_checkpointing_kwargs": '{"use_reentrant": true}'},
        ),
        (["--fsdp", "True"], {"fsdp": True}),
        (["--fsdp"], {"fsdp": True}),
        (["--fsdp", ""], {"fsdp": False}),
        (
            [
                "--fsdp",
                "full_shard auto_wrap",
                "--fsdp_transformer_layer_cls_to_wrap",
                "YuanDecoderLayer",
            ],
            {
                "fsdp": True,
                "fsdp_config": {
                    "reshard_after_forward": True,
                    "transformer_layer_cls_to_wrap": ["YuanDecoderLayer"],
                },
            },
        ),
        (
            ["--fsdp", "shard_grad_op offload", "--fsdp_min_num_params", "100"],
            {
                "fsdp": True,
                "fsdp_config": {
                    "reshard_after_forward": False,
                    "cpu_offload": True,
                    "min_num_params": 100,
                    "auto_wrap_policy": "SIZE_BASED_WRAP",
                },
            },
        ),
        (
            ["--fsdp", "full_shard", "--fsdp_config", '{"reshard_after_forward": false}'],
            {"fsdp": True, "fsdp_config": {"reshard_after_forward": False}},
        ),
    ],
)
def test_an_old_flag_becomes_todays(argv: list[str], values: dict[str, Any]) -> None:
    settings = parse(*argv)
    assert settings.training == {"output_dir": "o"} | values
    assert settings.notes == []


def test_fsdp_settings_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fsdp.json"
    path.write_text(json.dumps({"version": 2}))
    argv = ["--fsdp", "full_shard", "--fsdp_config", str(path)]
    config = parse(*argv).training["fsdp_config"]
    assert config == {"version": 2, "reshard_after_forward": True}


def test_todays_name_wins_over_the_old_one() -> None:
    settings = parse("--eval_strategy", "epoch", "--evaluation_strategy", "no")
    assert settings.training["eval_strategy"] == "epoch"


@pytest.mark.parametrize(
    ("argv", "note"),
    [
        (["--overwrite_output_dir"], "--overwrite_output_dir has no effect: checkpoints"),
        (["--logging_dir", "x"], "TENSORBOARD_LOGGING_DIR"),
        (["--save_safetensors", "False"], "always saved as safetensors"),
        (["--half_precision_backend", "apex"], "torch's autocast"),
        (["--include_tokens_per_second", "True"], "no such setting any more"),
        (["--warmup_steps", "10", "--warmup_ratio", "0.1"], "no effect beside --warmup_steps"),
    ],
)
def test_what_has_no_effect_is_said(argv: list[str], note: str) -> None:
    (said,) = parse(*argv).notes
    assert note in said


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--warmup_ratio", "1.5"], "from 0 to below 1"),
        (["--fsdp", "sharded"], "known are full_shard, shard_grad_op, offload, auto_wrap"),
        (["--fsdp", "full_shard", "--fsdp_config", "nowhere.json"], "cannot be read"),
        (["--fsdp", "full_shard", "--fsdp_config", "{"], "not valid JSON"),
    ],
)
def test_values_that_never_worked_are_refused(argv: list[str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse(*argv)


def made(name: str, annotation: str) -> dict[str, Flag]:
    found = flag(name, annotation)
    assert found is not None
    return {name: found}


def test_a_flag_that_the_installed_transformers_still_knows_is_left_to_it() -> None:
    known = made("logging_dir", "str") | made("warmup_ratio", "float") | made("warmup_steps", "int")
    assert not {"logging_dir", "warmup_ratio"} & old_flags(known).keys()
    assert "overwrite_output_dir" in old_flags(known)


def test_a_flag_is_renamed_only_to_one_that_is_known() -> None:
    assert "evaluation_strategy" not in old_flags({})
    old = old_flags(made("eval_strategy", "str"))
    values: dict[str, Any] = {}
    assert modernise(values, {"evaluation_strategy": "epoch"}, old) == []
    assert values == {"eval_strategy": "epoch"}
