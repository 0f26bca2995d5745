"""Layers on several devices: who gets what, and that the network computes the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import fastchat
from fastchat.errors import SettingsError
from fastchat.model import YuanForCausalLM
from fastchat.model.device_maps import bytes_of, map_layers
from fastchat.model.model_adapter import load_model

SMALL = Path(fastchat.__file__).parent / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., YuanForCausalLM]
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random_model(num_hidden_layers=6).save_pretrained(folder, max_shard_size="20KB")
    shutil.copy(SMALL / "tokenizer.model", folder)
    return folder


def size_of(folder: Path) -> int:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return sum(weight.nbytes for weight in model.parameters())


def test_whole_layers_are_spread_evenly(folder: Path) -> None:
    room = size_of(folder)
    found = map_layers(str(folder), None, {0: room, 1: room})
    layers = [found[f"model.layers.{number}"] for number in range(6)]
    assert layers == sorted(layers)
    assert set(layers) == {0, 1}
    assert 2 <= layers.count(0) <= 4
    assert found["lm_head"] == found["model.embed_tokens"]  # one matrix


def test_half_the_bytes_need_half_the_room(folder: Path) -> None:
    room = int(size_of(folder) * 0.4)
    with pytest.raises(SettingsError, match="not all layers find room on 2 GPUs"):
        map_layers(str(folder), None, {0: room, 1: room})
    assert map_layers(str(folder), torch.float16, {0: room, 1: room})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error is about having too few GPUs")
def test_too_few_gpus(folder: Path) -> None:
    with pytest.raises(SettingsError, match="--num-gpus is 2, but torch finds 0 CUDA devices"):
        load_model(str(folder), num_gpus=2)


@pytest.mark.parametrize("size", ["much", "0GiB", "-1GB"])
def test_memory_has_a_unit(size: str) -> None:
    with pytest.raises(SettingsError, match="a size such as 13GiB is needed"):
        bytes_of(size)
    assert bytes_of("13GiB") == 13 * 2**30


def test_spread_layers_compute_the_same(folder: Path, tmp_path: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    places: dict[str, str | int] = {
        name: "disk" if gpu else "cpu"
        for name, gpu in map_layers(str(folder), None, {0: 10**9, 1: 10**9}).items()
    }
    spread = AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path
    ).eval()
    assert {"disk", "cpu"} <= set(spread.hf_device_map.values())
    ids, mask = torch.arange(12).view(2, 6) + 3, torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    with torch.inference_mode():
        asked = {"input_ids": ids, "attention_mask": mask}
        assert torch.equal(spread(**asked).logits, whole(**asked).logits)
        options = {"max_new_tokens": 5, "do_sample": False}
        assert torch.equal(spread.generate(**asked, **options), whole.generate(**asked, **options))
