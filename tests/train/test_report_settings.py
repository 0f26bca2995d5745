"""Early stopping and trackers: what they make of the training arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.errors import SettingsError
from fastchat.train.arguments import TrainingArguments
from fastchat.train.stopping import callbacks_for, prepare_stopping
from fastchat.train.trackers import choose_trackers


def prepared(evaluates: bool = True, **values: Any) -> dict[str, Any]:
    values = {"early_stopping_patience": 3} | values
    prepare_stopping(values, evaluates=evaluates)
    return values


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ({}, ("steps", 500, "steps", 500)),
        ({"eval_strategy": "epoch"}, ("epoch", None, "epoch", None)),
        ({"save_strategy": "epoch"}, ("epoch", None, "epoch", None)),
        ({"save_strategy": "best"}, ("steps", 500, "best", 500)),
        ({"eval_steps": 100.0}, ("steps", 100, "steps", 100)),
        ({"save_steps": 50.0}, ("steps", 50, "steps", 50)),
        ({"eval_steps": 100.0, "save_steps": 300.0}, ("steps", 100, "steps", 300)),
        ({"eval_strategy": "steps", "eval_steps": 0.1}, ("steps", 0.1, "steps", 0.1)),
    ],
)
def test_saving_follows_evaluating(given_values: dict[str, Any], expected: Any) -> None:
    values = prepared(**given_values)
    names = ("eval_strategy", "eval_steps", "save_strategy", "save_steps")
    assert tuple(values.get(name) for name in names) == expected
    assert values["load_best_model_at_end"] is True
    assert values["metric_for_best_model"] == "eval_loss"
    assert values["greater_is_better"] is False


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "eval_strategy": st.sampled_from(["no", "steps", "epoch"]),
            "save_strategy": st.sampled_from(["no", "steps", "epoch", "best"]),
            "eval_steps": st.integers(1, 20),
            "save_steps": st.integers(1, 20),
        },
    )
)
def test_what_is_let_through_transformers_accepts(values: dict[str, Any]) -> None:
    try:
        values = prepared(**values)
    except SettingsError:
        return
    args = TrainingArguments(output_dir="unused", use_cpu=True, **values)
    assert args.load_best_model_at_end


def test_without_a_patience_nothing_changes(tmp_path: Path) -> None:
    values: dict[str, Any] = {"save_strategy": "no"}
    prepare_stopping(values, evaluates=False)
    assert values == {"save_strategy": "no"}
    assert callbacks_for(TrainingArguments(output_dir=str(tmp_path), use_cpu=True)) == []


def test_what_was_said_stays() -> None:
    values = prepared(metric_for_best_model="eval_bleu", load_best_model_at_end=False)
    assert values["metric_for_best_model"] == "eval_bleu"
    assert values["load_best_model_at_end"] is False
    assert "greater_is_better" not in values


@pytest.mark.parametrize(
    ("given_values", "complaint"),
    [
        ({"early_stopping_patience": 0}, "patience is 0"),
        ({"early_stopping_threshold": -1.0}, r"threshold is -1\.0"),
        ({"early_stopping_threshold": float("nan")}, "threshold is nan"),
        ({"early_stopping_patience": None, "early_stopping_threshold": 0.1}, "without a patience"),
        ({"evaluates": False}, "nothing to evaluate on.*--eval_data_path.*--eval_ratio"),
        ({"eval_strategy": "no"}, "--eval_strategy is no"),
        ({"save_strategy": "no"}, "--save_strategy is no"),
        ({"eval_strategy": "steps", "save_strategy": "epoch"}, "--save_strategy is epoch and"),
        ({"eval_steps": 100.0, "save_steps": 150.0}, "--save_steps is 150 and --eval_steps is 100"),
    ],
)
def test_what_contradicts_stopping_is_said(given_values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        prepared(**given_values)


def chosen(report_to: Any, *installed: str) -> Any:
    values = {} if report_to is None else {"report_to": report_to}
    choose_trackers(values, installed=installed.__contains__)
    return values["report_to"]


def test_tensorboard_is_the_default_where_it_is_installed() -> None:
    assert chosen(None, "tensorboard", "wandb") == ["tensorboard"]
    assert chosen(None, "wandb") == ["none"]


@pytest.mark.parametrize("report_to", ["none", ["none"], "all", "wandb", ["wandb", "trackio"]])
def test_what_was_asked_for_stays(report_to: Any) -> None:
    assert chosen(report_to, "wandb", "trackio") == report_to


@pytest.mark.parametrize(
    ("report_to", "complaint"),
    [
        ("wandb", "--report_to wandb needs a package.*pip install wandb"),
        (["tensorboard", "comet_ml"], "pip install comet-ml"),
        ("wandbb", "wandbb is no tracker; known are azure_ml, clearml"),
        (["none", "tensorboard"], "none is no tracker"),
    ],
)
def test_trackers_that_cannot_be_used(report_to: Any, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        chosen(report_to, "tensorboard")
