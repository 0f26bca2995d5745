"""Whole runs on preferences: what is learned, logged, saved, resumed and refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastchat.errors import DataError, SettingsError
from fastchat.model.model_adapter import load_model
from fastchat.train.arguments import LoraArguments
from fastchat.train.dpo import dpo_settings, train
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.dpo_task import base_is_reference, check_unsharded

TALK = [
    {"prompt": "你是谁?", "chosen": "我是源2.0。", "rejected": "我是谁?"},
    {"prompt": "Who are you?", "chosen": "I am Yuan.", "rejected": "I am nobody."},
    {"prompt": "1+1=?", "chosen": "2", "rejected": "3"},
    {"prompt": "Tell me a story.", "chosen": "Once upon a time.", "rejected": "No."},
]
Run = Callable[..., dict[str, float]]


@pytest.fixture
def prefer(tiny_model: Path, tmp_path: Path) -> Run:
    """Trains the tiny model on preferences; keywords are flags."""

    def run(**flags: Any) -> dict[str, float]:
        data = tmp_path / "pairs.json"
        data.write_text(json.dumps(TALK, ensure_ascii=False))
        values = {
            "model_name_or_path": tiny_model,
            "data_path": data,
            "output_dir": tmp_path / "out",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "constant",
            "report_to": "none",
            **flags,
        }
        return train([text for name, value in values.items() for text in (f"--{name}", str(value))])

    return run


def curve(folder: Path, name: str = "loss") -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_begins_at_ln_2_and_pulls_the_answers_apart(
    prefer: Run, tmp_path: Path, lora: bool
) -> None:
    flags = {"use_lora": True, "lora_dropout": 0, "learning_rate": 2e-2} if lora else {}
    prefer(max_steps=8, eval_ratio=0.25, per_device_train_batch_size=4, **flags)
    out = tmp_path / "out"
    assert curve(out)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve(out, "rewards/margins")[0] == pytest.approx(0, abs=1e-4)
    assert curve(out)[-1] < 0.6
    assert curve(out, "rewards/margins")[-1] > 0.2
    assert curve(out, "rewards/accuracies")[-1] == 1
    assert curve(out, "logps/chosen")[-1] < 0
    margins = [
        chosen - rejected
        for chosen, rejected in zip(
            curve(out, "rewards/chosen"), curve(out, "rewards/rejected"), strict=True
        )
    ]
    assert margins == pytest.approx(curve(out, "rewards/margins"), abs=1e-5)
    assert (out / "adapter_config.json").exists() is lora
    assert load_model(str(out), device="cpu")


def test_evaluation_has_figures_of_its_own(prefer: Run, tmp_path: Path) -> None:
    metrics = prefer(max_steps=2, eval_ratio=0.5, use_lora=True, sample_generations=1)
    assert {"eval_loss", "eval_rewards/margins", "eval_rewards/accuracies"} <= metrics.keys()
    assert len(curve(tmp_path / "out", "eval_loss")) == 1
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "beta" in shown


def test_pairs_at_once_weigh_as_pairs_one_by_one(prefer: Run, tmp_path: Path) -> None:
    for name, (size, steps) in {"at_once": (4, 1), "one_by_one": (1, 4), "two": (2, 2)}.items():
        prefer(
            output_dir=tmp_path / name,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=3,
            optim="sgd",
            learning_rate=0.1,
        )
    for name in ("one_by_one", "two"):
        assert curve(tmp_path / name) == pytest.approx(curve(tmp_path / "at_once"), rel=1e-4)
        assert curve(tmp_path / name, "grad_norm") == pytest.approx(
            curve(tmp_path / "at_once", "grad_norm"), rel=1e-4
        )


def test_a_resumed_run_keeps_the_reference_that_it_began_with(prefer: Run, tmp_path: Path) -> None:
    flags = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    prefer(output_dir=tmp_path / "whole", **flags)
    prefer(
        output_dir=tmp_path / "again",
        resume_from_checkpoint=tmp_path / "whole" / "checkpoint-2",
        **flags,
    )
    assert curve(tmp_path / "again") == pytest.approx(curve(tmp_path / "whole"), rel=1e-6)


def test_an_adapter_that_has_learned_is_its_own_reference(prefer: Run, tmp_path: Path) -> None:
    flags = {"use_lora": True, "lora_dropout": 0, "max_steps": 3, "learning_rate": 2e-2}
    prefer(output_dir=tmp_path / "one", **flags)
    prefer(output_dir=tmp_path / "two", lora_weight_path=tmp_path / "one", **flags)
    assert curve(tmp_path / "two")[0] == pytest.approx(math.log(2), abs=1e-4)
    assert not base_is_reference(LoraArguments(lora_bias="all"))
    assert base_is_reference(LoraArguments())


def test_four_bits_and_bf16_begin_at_ln_2_as_well(prefer: Run, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    flags = {"use_lora": True, "q_lora": True, "lora_dropout": 0, "max_steps": 2}
    prefer(output_dir=tmp_path / "one", **flags)
    prefer(output_dir=tmp_path / "two", lora_weight_path=tmp_path / "one", **flags)
    prefer(output_dir=tmp_path / "bf16", bf16=True, max_steps=2)
    for name in ("one", "two", "bf16"):
        assert curve(tmp_path / name)[0] == pytest.approx(math.log(2), abs=1e-4)
        assert curve(tmp_path / name)[1] < curve(tmp_path / name)[0]


def test_bins_checkpointed_activations_and_a_recipe_go_with_it(prefer: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("beta: 0.2\nuse_lora: true\ntokens_per_batch: 60\n")
    prefer(config=recipe, max_steps=2, gradient_checkpointing=True, group_by_length=True)
    assert curve(tmp_path / "out")[0] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(DataError, match=r"--tokens_per_batch is 5, but one pair has"):
        prefer(tokens_per_batch=5)


# ---- what is refused -----------------------------------------------------------------------

NEEDED = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--beta 0", "--beta is 0.0; a number above 0"),
        ("--dpo_label_smoothing 0.5", "0.5; a share from 0 to below 0.5"),
        ("--dpo_label_smoothing 0.1 --loss_type ipo", "means nothing with --loss_type ipo"),
        ("--loss_type hinge", "hinge"),
        ("--lora_r 4", "Give --use_lora True"),
        ("--q_lora True", "Give --use_lora True"),
        ("--packing False", "--packing False does not go with preferences"),
        ("--efficient_loss True", "--efficient_loss means nothing here"),
    ],
)
def test_flags_that_do_not_go_together(flags: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        dpo_settings([*NEEDED, *flags.split()])


def test_flags_come_in_both_spellings() -> None:
    settings = dpo_settings([*NEEDED, "--use-lora", "--loss-type", "ipo", "--lora-r", "4"])
    assert settings.extra == DpoArguments(use_lora=True, loss_type="ipo")
    assert settings.lora == LoraArguments(lora_r=4)
    assert dpo_settings(NEEDED).lora is None


@pytest.mark.parametrize(
    "engine", [{"deepspeed": {"zero_optimization": {"stage": 3}}}, {"fsdp": ["full_shard"]}]
)
def test_weights_that_are_spread_cannot_be_asked_beforehand(engine: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"--use_lora True"):
        check_unsharded(SimpleNamespace(**({"deepspeed": None, "fsdp": ""} | engine)))


def test_flags_are_read_without_torch() -> None:
    probe = (
        "import sys; from fastchat.train.dpo import dpo_settings\n"
        f"dpo_settings({NEEDED!r}); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_a_file_that_is_wrong_ends_the_run_with_its_name_and_sample(
    prefer: Run, tmp_path: Path
) -> None:
    data = tmp_path / "wrong.json"
    data.write_text('[{"prompt": "Hi", "chosen": "Hello"}]')
    with pytest.raises(DataError, match=r"wrong\.json: sample 1 .*has no 'rejected'"):
        prefer(data_path=data)
    assert not (tmp_path / "out" / "config.json").exists()
