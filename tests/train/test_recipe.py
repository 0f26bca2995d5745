"""Recipes: what they mean, what wins over them, and what is said of a wrong one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastchat
from fastchat.errors import SettingsError
from fastchat.train.deepspeed_config import read_deepspeed_config
from fastchat.train.recipe import read_recipes
from fastchat.train.settings import Settings, parse_settings
from fastchat.train.train_with_template import HELD_OUT

CHECKOUT = Path(fastchat.__file__).parents[1]
NEEDED = "model_name_or_path: m\ndata_path: d\noutput_dir: o\n"
RECIPES = sorted((CHECKOUT / "scripts" / "recipes").glob("*.yaml"))


@pytest.fixture
def parse(tmp_path: Path) -> Any:
    def parse(text: str, *argv: str, lora: bool = False) -> Settings:
        path = tmp_path / "recipe.yaml"
        path.write_text(NEEDED + text, encoding="utf-8")
        return parse_settings([*argv, "--config", str(path)], lora=lora)

    return parse


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate: 2e-5", "learning_rate", 2e-5),
        ("learning-rate: .5", "learning_rate", 0.5),
        ("bf16: true", "bf16", True),
        ("bf16: yes", "bf16", True),
        ("bf16: False", "bf16", False),
        ("save_total_limit: 3", "save_total_limit", 3),
        ("save_steps: 1200", "save_steps", 1200.0),
        ("eval_strategy: no", "eval_strategy", "no"),
        ("evaluation_strategy: no", "eval_strategy", "no"),
        ("run_name: 2024-01-01", "run_name", "2024-01-01"),
        ("run_name: 1.10", "run_name", "1.10"),
        ("run_name: '--bf16'", "run_name", "--bf16"),
        ("report_to: [wandb, tensorboard]", "report_to", ["wandb", "tensorboard"]),
        ("report_to: [wandb]", "report_to", "wandb"),
        ("report_to: none", "report_to", "none"),
        ("label_names: labels", "label_names", ["labels"]),
        ("label_names:\n- labels", "label_names", ["labels"]),
        ("gradient_checkpointing: true", "activation_checkpointing", True),
        ("deepspeed: playground/x.json", "deepspeed", "playground/x.json"),
        ("liger_kernel_config: {rope: true}", "liger_kernel_config", {"rope": True}),
        ("lr_scheduler_kwargs: {num_cycles: 2}", "lr_scheduler_kwargs", '{"num_cycles": 2}'),
        ("fsdp: full_shard auto_wrap", "fsdp", True),
        ("peak_tflops: 312", "peak_tflops", 312.0),
        ("sample_generations: 3", "sample_generations", 3),
        ("early_stopping_patience: 2", "early_stopping_patience", 2),
    ],
)
def test_a_value_is_what_the_command_line_would_have_made_of_it(
    parse: Any, text: str, name: str, value: Any
) -> None:
    assert parse(text).training[name] == value


def test_a_map_for_deepspeed_is_read_as_its_file_would_be(parse: Any) -> None:
    text = "deepspeed:\n  zero_optimization: {stage: 2, reduce_bucket_size: 5e8}\n"
    config, notes = read_deepspeed_config(parse(text).training["deepspeed"])
    assert config == {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e8}}
    assert notes == []


def test_a_recipe_holds_what_is_needed() -> None:
    settings = parse_settings([f"--config={{{NEEDED.strip().replace(chr(10), ', ')}}}"])
    assert (settings.model.model_name_or_path, settings.data.data_path) == ("m", "d")
    assert settings.training == {"output_dir": "o"}


def test_what_a_recipe_leaves_out_is_still_needed() -> None:
    with pytest.raises(SettingsError, match="required: --data_path, --output_dir"):
        parse_settings(["--config", "{model_name_or_path: m}"])


@pytest.mark.parametrize(
    ("text", "argv", "name", "value"),
    [
        ("learning_rate: 1", ["--learning_rate", "2"], "learning_rate", 2.0),
        ("learning_rate: 1", ["--learning-rate=2"], "learning_rate", 2.0),
        ("bf16: true", ["--bf16", "False"], "bf16", False),
        ("report_to: [wandb, mlflow]", ["--report_to", "none"], "report_to", "none"),
        ("eval_strategy: steps", ["--evaluation_strategy", "no"], "eval_strategy", "no"),
        ("evaluation_strategy: steps", ["--eval_strategy", "no"], "eval_strategy", "no"),
        ("warmup_steps: 10", ["--warmup_ratio", "0.1"], "warmup_steps", 0.1),
        (
            "fsdp_config: {version: 2, reshard_after_forward: false}",
            ["--fsdp", "full_shard"],
            "fsdp_config",
            {"version": 2, "reshard_after_forward": True},
        ),
        (
            "fsdp_config: {version: 2}",
            ["--fsdp_config", '{"cpu_offload": true}'],
            "fsdp_config",
            '{"cpu_offload": true}',
        ),
    ],
)
def test_the_command_line_wins(
    parse: Any, text: str, argv: list[str], name: str, value: Any
) -> None:
    assert parse(text, *argv).training[name] == value


def test_lists_do_not_add_up(parse: Any) -> None:
    lora = parse(
        "lora_target_modules: [q_proj, k_proj]", "--lora_target_modules", "v_proj", lora=True
    ).lora
    assert lora.target_modules == ["v_proj"]


def test_a_later_recipe_wins_and_null_takes_back(tmp_path: Path) -> None:
    for name, text in (
        ("a", NEEDED + "learning_rate: 1\nbf16: true\nseed: 7"),
        ("b", "learning_rate: 2\nseed: null"),
    ):
        (tmp_path / name).write_text(text)
    argv = ["--config", str(tmp_path / "a"), f"--config={tmp_path / 'b'}"]
    assert parse_settings(argv).training == {
        "output_dir": "o",
        "learning_rate": 2.0,
        "bf16": True,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("learning_rte: 1", r"line 4: unknown key 'learning_rte'. Did you mean learning_rate\?"),
        ("seed: 1\n\nzzz: 1", "line 6: unknown key 'zzz'. --help lists"),
        ("lora_r: 4", "line 4: lora_r is a flag of train_lora.py only"),
        ("config: x", "line 4: a recipe cannot name another"),
        ("bf16: maybe", "line 4: bf16 is maybe; true or false is needed"),
        ("bf16: [true]", "line 4: bf16 is a list; true or false is needed"),
        ("learning_rate: fast", "line 4: learning_rate is fast; a number is needed"),
        ("learning_rate: '1'", 'line 4: learning_rate is "1"; a number is needed'),
        ("learning_rate: {a: 1}", "line 4: learning_rate is a map; a number is needed"),
        ("save_total_limit: 1.5", "line 4: save_total_limit is 1.5; a whole number is needed"),
        ("run_name: [a, b]", "line 4: run_name is a list; a text is needed"),
        ("deepspeed: [a]", "line 4: deepspeed is a list; a text or a map is needed"),
        ("liger_kernel_config: x", "line 4: liger_kernel_config is x; a map is needed"),
        ("label_names: [a, [b]]", "line 4: label_names holds no single value"),
        ("label_names: []", "line 4: label_names is an empty list"),
        ("padding_side: top", "line 4: padding_side is 'top'; allowed are right, left"),
        ("seed: 1\nseed: 2", "line 5: seed was given in line 4 already"),
        ("max-steps: 1\nmax_steps: 2", "line 5: max_steps was given in line 4 already"),
        ("[a]: 1", "line 4: a key has to be the name of a flag"),
        ("deepspeed: {a: !!python/name:os.system ''}", "line 4: could not determine"),
        ("seed: 1\n  bf16: true", "recipe.yaml, line 5, column .*: not valid YAML"),
        ("run_name: \x07", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(parse: Any, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        parse(text)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"# nothing yet\n", "is empty"),
        (b"- a\n- b\n", "line 1: a recipe is a map of flags"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=complaint):
        parse_settings(["--config", str(path)])


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml cannot be read: No such file"):
        parse_settings(["--config", "nowhere.yaml"])
    with pytest.raises(SettingsError, match="config: expected one argument"):
        parse_settings(["--config"])


@given(st.text())
def test_any_text_is_a_recipe_or_an_error(text: str) -> None:
    with contextlib.suppress(SettingsError):
        assert read_recipes(["{" + text], {}) == {}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_can_be_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    settings = parse_settings(["--config", str(path)], lora="lora" in path.stem)
    assert settings.notes == []
    assert settings.training["bf16"] is True
    if "deepspeed" in settings.training:
        stage = check_with_deepspeed(settings.training["deepspeed"])
        assert stage == (2 if "full" in path.stem else 3)
    if settings.lora is not None:
        assert settings.lora.q_lora == ("qlora" in path.stem)


def test_the_documented_recipe_can_be_used(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
    path = tmp_path / "documented.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    training = parse_settings(["--config", str(path)]).training
    assert training["report_to"] == ["tensorboard", "trackio"]
    assert check_with_deepspeed(training["deepspeed"]) == 2


def test_what_has_no_effect_is_said_once(parse: Any) -> None:
    settings = parse("overwrite_output_dir: true", "--overwrite_output_dir")
    assert len(settings.notes) == 1


def test_there_is_a_recipe_for_each_size() -> None:
    assert [path.stem for path in RECIPES] == [
        "yuan2-102b-lora",
        "yuan2-2b-full",
        "yuan2-2b-qlora",
        "yuan2-51b-lora",
    ]


@pytest.mark.parametrize(
    ("name", "stage", "offloaded"),
    [
        ("zero2_ds_woloading", 2, set()),
        ("deepspeed_config_s2", 2, {"offload_optimizer"}),
        ("deepspeed_config_s3", 3, {"offload_optimizer", "offload_param"}),
    ],
)
def test_the_deepspeed_settings_that_come_along(name: str, stage: int, offloaded: set[str]) -> None:
    path = CHECKOUT / "playground" / f"{name}.json"
    assert check_with_deepspeed(str(path)) == stage
    settings = json.loads(path.read_text())
    assert offloaded == {key for key in settings["zero_optimization"] if "offload" in key}
    assert settings["bf16"] == settings["fp16"] == {"enabled": "auto"}


def check_with_deepspeed(setting: str) -> int:
    """Has DeepSpeed's own class read the settings as the Trainer would fill them in."""
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.config import DeepSpeedConfig

    config, notes = read_deepspeed_config(setting)
    assert notes == []
    filled = {key: value for key, value in config.items() if value != "auto"}
    filled |= {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}}
    filled["fp16"] = {"enabled": False}
    zero = {key: value for key, value in config["zero_optimization"].items() if value != "auto"}
    return int(DeepSpeedConfig(filled | {"zero_optimization": zero}).zero_config.stage)


@pytest.mark.parametrize("script", sorted((CHECKOUT / "scripts").glob("train_*.sh")))
def test_a_script_starts_torchrun_with_a_recipe_and_hands_flags_on(
    script: Path, tmp_path: Path
) -> None:
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [str(script), "--learning_rate", "1e-3", "--run_name", "a b"],
        env=os.environ | {"PATH": path, "GPUS": "2"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    words = result.stdout.splitlines()
    assert words[:2] == ["--nproc_per_node=2", "--master_port=20001"]
    entry, *argv = words[2:]
    assert (CHECKOUT / entry).is_file()
    assert (CHECKOUT / argv[1]).is_file()
    assert argv[0] == "--config"
    assert argv[2:] == ["--learning_rate", "1e-3", "--run_name", "a b"]


def test_the_entry_with_a_template_holds_out_two_percent() -> None:
    needed = ["--config", "{model_name_or_path: m, data_path: d, output_dir: o}"]
    assert parse_settings([*HELD_OUT, *needed]).data.eval_ratio == 0.02
    assert parse_settings([*HELD_OUT, *needed, "--eval_ratio", "0"]).data.eval_ratio == 0
    later = ["--config", "{eval_ratio: 0.1}"]
    assert parse_settings([*HELD_OUT, *needed, *later]).data.eval_ratio == 0.1
    assert parse_settings(needed).data.eval_ratio == 0


@pytest.mark.parametrize("ratio", ["-0.1", "1", "nan"])
def test_a_share_to_hold_out_is_a_share(ratio: str) -> None:
    needed = ["--config", "{model_name_or_path: m, data_path: d, output_dir: o}"]
    with pytest.raises(SettingsError, match=r"--eval_ratio is .* from 0 to below 1"):
        parse_settings([*needed, "--eval_ratio", ratio])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sample_generations: -1", "--sample_generations is -1; .* from 0 on"),
        ("peak_tflops: 0", r"--peak_tflops is 0\.0; a rate above 0"),
        ("peak_tflops: nan", "--peak_tflops is nan"),
        ("per_device_train_batch_size: 0", "--per_device_train_batch_size is 0; .* from 1 on"),
        ("learning_rate: nan", "--learning_rate is nan; a number from 0 on"),
    ],
)
def test_figures_that_mean_nothing_are_refused(parse: Any, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse(text)


@pytest.mark.parametrize("argv", [["--help"], ["--nonsense"]])
def test_the_entry_with_a_template_runs_as_a_file(argv: list[str], tmp_path: Path) -> None:
    entry = CHECKOUT / "fastchat" / "train" / "train_with_template.py"
    result = subprocess.run(
        [sys.executable, str(entry), *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == (2 if "--nonsense" in argv else 0)
    if "--help" in argv:
        assert "--config" in result.stdout
    else:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
