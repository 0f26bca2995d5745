"""Command lines: what is accepted, what it means, and that it costs no torch."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastchat
from fastchat.data.rows import LossMode
from fastchat.errors import SettingsError
from fastchat.train.arguments import ALL_PROJECTIONS
from fastchat.train.flags import transformers_flags
from fastchat.train.settings import Settings, parse_settings

CHECKOUT = Path(fastchat.__file__).parents[1]
NEEDED = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]

GUIDE_FULL = r"""
    --model_name_or_path path-to-huggingface-models \
    --trust_remote_code True\
    --data_path ./data/alpaca_data_zh_conversion.json \
    --bf16 True \
    --output_dir ./test_yuan2b_full \
    --num_train_epochs 3 \
    --per_device_train_batch_size 4 \
    --per_device_eval_batch_size 1 \
    --gradient_accumulation_steps 4 \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps 1200 \
    --save_total_limit 10 \
    --learning_rate 2e-5 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type "cosine" \
    --logging_steps 1 \
    --tf32 True \
    --model_max_length 1024 \
    --gradient_checkpointing True \
    --lazy_preprocess True \
    --deepspeed playground/zero2_ds_woloading.json \
    --efficient_loss False \
    --split_example_loss True \
    --last_response_loss False
"""

GUIDE_LORA = r"""
    --model_name_or_path hf-to-yuan-path \
    --trust_remote_code True\
    --data_path ./data/alpaca-data-conversation.json \
    --bf16 True \
    --output_dir ./checkpoints_yuan2_2b_lora \
    --num_train_epochs 3 \
    --per_device_train_batch_size 1 \
    --per_device_eval_batch_size 1 \
    --gradient_accumulation_steps 16 \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps 1200 \
    --save_total_limit 10 \
    --learning_rate 2e-5 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type "cosine" \
    --logging_steps 1 \
    --model_max_length 512 \
    --gradient_checkpointing True \
    --lazy_preprocess True \
    --q_lora True \
    --efficient_loss False \
    --split_example_loss True \
    --last_response_loss False
"""

SHARED_TRAINING = {
    "bf16": True,
    "num_train_epochs": 3.0,
    "per_device_eval_batch_size": 1,
    "eval_strategy": "no",
    "save_strategy": "steps",
    "save_steps": 1200.0,
    "save_total_limit": 10,
    "learning_rate": 2e-5,
    "weight_decay": 0.0,
    "warmup_steps": 0.03,
    "lr_scheduler_type": "cosine",
    "logging_steps": 1.0,
    "activation_checkpointing": True,
}


def as_a_shell_does(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", ""))


def parse(*argv: str, lora: bool = False) -> Settings:
    return parse_settings([*NEEDED, *argv], lora=lora)


def test_the_guides_full_command_parses_to_what_it_says() -> None:
    settings = parse_settings(as_a_shell_does(GUIDE_FULL))
    assert settings.model.model_name_or_path == "path-to-huggingface-models"
    assert settings.model.trust_remote_code is True
    assert settings.data.data_path == "./data/alpaca_data_zh_conversion.json"
    assert settings.data.lazy_preprocess is True
    assert settings.data.loss_mode is LossMode.SPLIT_EXAMPLE
    assert settings.training == SHARED_TRAINING | {
        "output_dir": "./test_yuan2b_full",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "tf32": True,
        "model_max_length": 1024,
        "deepspeed": "playground/zero2_ds_woloading.json",
    }
    assert settings.lora is None
    assert settings.notes == []


def test_the_guides_lora_command_parses_to_what_it_says() -> None:
    settings = parse_settings(as_a_shell_does(GUIDE_LORA), lora=True)
    assert settings.lora is not None
    assert settings.lora.q_lora is True
    assert settings.lora.target_modules == list(ALL_PROJECTIONS)
    assert settings.training == SHARED_TRAINING | {
        "output_dir": "./checkpoints_yuan2_2b_lora",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "model_max_length": 512,
    }


def test_transformers_flags_are_those_of_its_class() -> None:
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    # An object of accelerate's, which no text on a command line can be.
    assert transformers_flags().keys() == fields - {"parallelism_config"}


def test_the_class_has_this_projects_fields_and_defaults(tmp_path: Path) -> None:
    from fastchat.train.arguments import TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (args.cache_dir, args.model_max_length) == (None, 512)
    assert args.optim == "adamw_torch"
    assert args.report_to == []


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--bf16"], "bf16", True),
        (["--bf16", "true"], "bf16", True),
        (["--bf16=False"], "bf16", False),
        (["--bf16", "0"], "bf16", False),
        (["--per-device-train-batch-size", "2"], "per_device_train_batch_size", 2),
        (["--per-device-train-batch-size=2"], "per_device_train_batch_size", 2),
        (["--learning_r", "1e-3"], "learning_rate", 1e-3),
        (["--report_to", "none"], "report_to", "none"),
        (["--report_to", "wandb", "tensorboard"], "report_to", ["wandb", "tensorboard"]),
        (["--label_names", "labels"], "label_names", ["labels"]),
        (["--include_num_input_tokens_seen", "all"], "include_num_input_tokens_seen", "all"),
        (["--include_num_input_tokens_seen", "True"], "include_num_input_tokens_seen", True),
        (
            ["--lr_scheduler_kwargs", '{"num_cycles": 2}'],
            "lr_scheduler_kwargs",
            '{"num_cycles": 2}',
        ),
        (["--liger_kernel_config", '{"rope": true}'], "liger_kernel_config", {"rope": True}),
        (["--no_skip_memory_metrics"], "skip_memory_metrics", False),
        (["--run_name", "a--b-c"], "run_name", "a--b-c"),
        (["--local_rank=1"], "local_rank", 1),
        (["--local-rank=1"], "local_rank", 1),
    ],
)
def test_spellings(argv: list[str], name: str, value: Any) -> None:
    assert parse(*argv).training[name] == value


def test_only_what_was_given_is_handed_on() -> None:
    assert parse().training == {"output_dir": "o"}


def test_short_names_of_the_adapters_flags() -> None:
    lora = parse("--lora_r", "4", "--lora-target", "q_proj", "--lora_w", "path", lora=True).lora
    assert lora is not None
    assert (lora.lora_r, lora.target_modules, lora.lora_weight_path) == (4, ["q_proj"], "path")


@pytest.mark.parametrize(
    ("argv", "mode"),
    [
        ([], LossMode.SPLIT_EXAMPLE),
        (["--efficient_loss", "False"], LossMode.SPLIT_EXAMPLE),
        (["--efficient_loss", "True"], LossMode.EFFICIENT),
        (["--last_response_loss", "True", "--efficient_loss", "False"], LossMode.LAST_RESPONSE),
        (["--split_example_loss"], LossMode.SPLIT_EXAMPLE),
    ],
)
def test_loss_flags(argv: list[str], mode: LossMode) -> None:
    assert parse(*argv).data.loss_mode is mode


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--efficient_loss", "--split_example_loss"], "are true together"),
        (
            ["--learning_rte", "1"],
            "Unknown argument: --learning_rte 1.*Did you mean --learning_rate",
        ),
        (["stray"], "Unknown argument: stray"),
        (["--lora_r", "4"], "Unknown argument: --lora_r"),
        (["--bf16", "maybe"], "'maybe' is neither True nor False"),
        (["--learning_rate", "fast"], "learning_rate: invalid float value"),
        (["--padding_side", "top"], "padding_side: invalid choice: 'top'"),
        (["--train_sampling_strategy", "best"], "invalid choice: 'best'"),
        (["--learning"], "expected one argument"),
        (["--save", "1"], "Ambiguous option"),
        (["--liger_kernel_config", "{"], "is not JSON"),
        (["--parallelism_config", "x"], "Unknown argument"),
    ],
)
def test_what_cannot_be_used_is_said(argv: list[str], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        parse(*argv)


def test_model_data_and_output_are_needed() -> None:
    with pytest.raises(SettingsError, match="--model_name_or_path, --data_path, --output_dir"):
        parse_settings([])


ENTRIES = ["train", "train_mem", "train_yuan2", "train_lora"]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("as_file", [True, False])
def test_help_is_printed_wherever_an_entry_is_started(
    entry: str, as_file: bool, tmp_path: Path
) -> None:
    if as_file:  # from anywhere, without the package being installed
        command = [str(CHECKOUT / "fastchat" / "train" / f"{entry}.py")]
    else:
        command = ["-m", f"fastchat.train.{entry}"]
    result = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=tmp_path if as_file else CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "--efficient_loss" in result.stdout
    assert "--save_total_limit" in result.stdout
    assert ("--lora_r" in result.stdout) == (entry == "train_lora")


@pytest.mark.parametrize("entry", ENTRIES)
def test_wrong_flags_end_with_status_2_and_one_line(entry: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"fastchat.train.{entry}", "--nonsense"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_parsing_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "from fastchat.train import train, train_lora, train_mem, train_yuan2\n"
        "from fastchat.train.settings import parse_settings\n"
        "import fastchat.data.validate\n"
        f"parse_settings({NEEDED!r}, lora=True)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'peft'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, timeout=60)


def test_entries_export_what_fastchats_users_import() -> None:
    from fastchat.train import train as general
    from fastchat.train import train_lora, train_mem, train_yuan2
    from fastchat.train.training_arguments import TrainingArguments

    for module in (general, train_yuan2):
        assert module.TrainingArguments is TrainingArguments
        assert module.DataArguments
        assert module.ModelArguments
        assert module.make_supervised_data_module
        assert module.train
    assert train_mem.train is train_yuan2.train
    assert train_lora.LoraArguments
    assert train_lora.make_supervised_data_module
