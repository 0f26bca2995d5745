"""However a step's conversations are laid out, the step is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fastchat.model import load_tokenizer
from tests.train.conftest import OTHER_TEMPLATE, Train, train_quietly, write_talks
from tests.train.test_training import losses, weights

STEPS: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "report_to": "none",
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


@pytest.fixture(scope="module")
def plain(tiny_model: Path, talks_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the defaults lay it out."""
    folder = tmp_path_factory.mktemp("plain")
    train_quietly(model_name_or_path=tiny_model, data_path=talks_file, output_dir=folder, **STEPS)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_losses_and_weights(
    fine_tune: Train, plain: Path, tmp_path: Path, layout: str
) -> None:
    fine_tune(**STEPS | LAYOUTS[layout])
    assert losses(tmp_path / "out") == pytest.approx(losses(plain), rel=1e-4)
    torch.testing.assert_close(weights(tmp_path / "out"), weights(plain), rtol=1e-4, atol=1e-6)


def test_packing_changes_no_count_of_steps(fine_tune: Train, tmp_path: Path) -> None:
    flags = {"num_train_epochs": 2, "per_device_train_batch_size": 2}
    fine_tune(output_dir=tmp_path / "flat", **flags)
    fine_tune(output_dir=tmp_path / "padded", packing=False, **flags)
    assert len(losses(tmp_path / "flat")) == len(losses(tmp_path / "padded")) == 4


@pytest.mark.slow
def test_which_conversations_a_step_takes_depends_on_the_seed_alone(
    fine_tune: Train, tmp_path: Path
) -> None:
    words = ["a", "b c", "你好", "why not?", "1 2 3", "ok", "no!", "so be it"]
    talks = [[word, f"{word} it is", "and?", word] for word in words]
    data = write_talks(tmp_path / "eight.json", talks)
    flags = {**STEPS, "data_path": data, "max_steps": 4}
    fine_tune(output_dir=tmp_path / "plain", **flags)
    plain = losses(tmp_path / "plain")
    for name in ("padded", "two by two", "one by one"):
        fine_tune(output_dir=tmp_path / name, **flags | LAYOUTS[name])
        assert losses(tmp_path / name) == pytest.approx(plain, rel=1e-4)
    fine_tune(output_dir=tmp_path / "seed", **flags, seed=7)
    assert losses(tmp_path / "seed") != pytest.approx(plain, rel=1e-4)


def llama(folder: Path, yuan: Path, **config: Any) -> Path:
    """A Llama with a chat template that names the roles, in a folder."""
    tokenizer = load_tokenizer(yuan)
    tokenizer.chat_template = OTHER_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            **config,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_another_models_layouts_are_the_same_too(
    fine_tune: Train, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {**STEPS, "model_name_or_path": llama(tmp_path / "llama", tiny_model)}
    fine_tune(output_dir=tmp_path / "flat", **flags)
    fine_tune(output_dir=tmp_path / "padded", packing=False, **flags)
    assert losses(tmp_path / "flat") == pytest.approx(losses(tmp_path / "padded"), rel=1e-4)
    torch.testing.assert_close(
        weights(tmp_path / "flat"), weights(tmp_path / "padded"), rtol=1e-4, atol=1e-6
    )
    assert "Batches are padded" not in caplog.text


def test_a_model_with_a_sliding_window_is_padded_and_says_so(
    fine_tune: Train, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = llama(tmp_path / "llama", tiny_model, sliding_window=64)
    fine_tune(model_name_or_path=folder, max_steps=1)
    assert "Batches are padded: llama attends" in caplog.text
