"""However a step's conversations are laid out, the step is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import Train
from tests.train.test_training import losses, weights

STEPS: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"packing": False},
    "padded on the left": {"packing": False, "padding_side": "left"},
    "by length": {"packing": False, "train_sampling_strategy": "group_by_length"},
    "two by two": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "one by one": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "filled": {"per_device_train_batch_size": 1, "tokens_per_batch": 4096},
    "checkpointed": {"gradient_checkpointing": True},
    "lazy": {"lazy_preprocess": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_losses_and_weights(
    fine_tune: Train, tmp_path: Path, layout: str
) -> None:
    fine_tune(output_dir=tmp_path / "plain", **STEPS)
    fine_tune(output_dir=tmp_path / "other", **STEPS | LAYOUTS[layout])
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    torch.testing.assert_close(
        weights(tmp_path / "other"), weights(tmp_path / "plain"), rtol=1e-4, atol=1e-6
    )


def test_packing_changes_no_count_of_steps(fine_tune: Train, tmp_path: Path) -> None:
    flags = {"num_train_epochs": 2, "per_device_train_batch_size": 2}
    fine_tune(output_dir=tmp_path / "flat", **flags)
    fine_tune(output_dir=tmp_path / "padded", packing=False, **flags)
    assert len(losses(tmp_path / "flat")) == len(losses(tmp_path / "padded")) == 4
