"""Whatever reads a published checkpoint reads a random one, which is there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.demo.random_checkpoint import (
    FORMATS,
    main,
    plan_shards,
    published_config,
    size_in_bytes,
    write_random_checkpoint,
)
from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings
from fastchat.errors import CheckpointError, SettingsError
from fastchat.model import YuanConfig
from fastchat.model.published_weights import published_shapes, refuse_other_weights
from fastchat.model.weight_files import WeightFiles
from fastchat.train.arguments import ModelArguments
from fastchat.train.loading import load_for_training
from fastchat.train.memory.shape import PUBLISHED
from fastchat.train.training_arguments import TrainingArguments

SMALL = YuanConfig(
    vocab_size=4096,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    pad_token_id=1,
    bos_token_id=1,
    eos_token_id=1,
)


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
def test_both_formats_hold_the_same_readable_model(tmp_path: Path, shard_bytes: int) -> None:
    models = {}
    for kind in ("safetensors", "bin"):
        folder = tmp_path / kind
        write_random_checkpoint(folder, SMALL, file_format=kind, shard_bytes=shard_bytes)
        with WeightFiles(folder) as weights:
            refuse_other_weights(weights, SMALL)
        assert len(list(folder.glob(f"*.{kind}"))) == (1 if shard_bytes == 10**9 else 3)
        models[kind] = AutoModelForCausalLM.from_pretrained(folder)
    assert models["bin"].dtype is torch.bfloat16
    others = models["bin"].state_dict()
    for name, weight in models["safetensors"].state_dict().items():
        assert torch.equal(weight, others[name]), name
        assert (weight.float().mean() > 0.9) == ("norm" in name), name


def test_a_target_that_exists_is_refused_and_nothing_half_written_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_random_checkpoint(folder, SMALL)
    write_random_checkpoint(folder, SMALL)
    with pytest.raises(SettingsError, match="holds something else"):
        write_random_checkpoint(folder, SMALL, seed=1)
    tokenizer = tmp_path / "no-tokenizer"
    tokenizer.mkdir()
    with pytest.raises(Exception, match="no-tokenizer"):
        write_random_checkpoint(tmp_path / "other", SMALL, tokenizer=tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "no-tokenizer"]


@pytest.mark.parametrize(("model", "files"), [("2b", 1), ("51b", 22), ("102b", 43)])
def test_published_sizes(model: str, files: int) -> None:
    config = published_config(model)
    shapes = sorted(published_shapes(config))
    shards = list(plan_shards(shapes, 5 * 10**9))
    assert [item for shard in shards for item in shard] == shapes
    assert len(shards) == files
    assert max(map(size_in_bytes, shards)) <= 5 * 10**9
    head = 2 * config.vocab_size * config.hidden_size  # a copy in the files
    assert size_in_bytes(shapes) == 2 * PUBLISHED[model].parameters + head


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SMALL.save_pretrained(tmp_path / "sizes")
    out = tmp_path / "out"
    assert main(["--model", str(tmp_path / "sizes"), "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 32
    assert main(["--model", "7b", "--out", str(tmp_path / "no")]) != 0
    assert "neither 2b, 51b, 102b nor a folder" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_missing_file_is_named_by_whatever_loads_the_model(
    tmp_path: Path, file_format: str
) -> None:
    folder = tmp_path / "model"
    write_random_checkpoint(folder, SMALL, file_format=file_format, shard_bytes=100_000)
    missing = next(folder.glob("*-00002-of-00003.*"))
    missing.unlink()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for load in (
        lambda: load_served_model(str(folder), device="cpu"),
        lambda: load_served_model(str(folder), device="cpu", engine=EngineSettings(batched=False)),
        lambda: load_for_training(
            ModelArguments(model_name_or_path=str(folder)), arguments, None, None
        ),
    ):
        with pytest.raises(CheckpointError, match=f"lacks {missing.name}, named in"):
            load()
