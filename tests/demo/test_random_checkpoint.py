"""Whatever reads a published checkpoint reads a random one, which is there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.demo.random_checkpoint import (
    main,
    plan_shards,
    published_config,
    size_in_bytes,
    write_random_checkpoint,
)
from fastchat.errors import SettingsError
from fastchat.model import YuanConfig
from fastchat.model.published_weights import published_shapes, refuse_other_weights
from fastchat.model.weight_files import WeightFiles
from fastchat.train.memory.shape import PUBLISHED

SMALL = YuanConfig(
    vocab_size=4096,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
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
