"""What is loaded, what is refused, and what the refusals say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import fastchat
from fastchat.errors import CheckpointError, FastChatError, SettingsError, UnsupportedModelError
from fastchat.model import YuanForCausalLM, load_tokenizer
from fastchat.model.base_adapter import BaseModelAdapter
from fastchat.model.model_adapter import (
    generation_defaults,
    get_conversation_template,
    get_model_adapter,
    load_model,
)
from fastchat.model.model_yuan2 import Yuan2Adapter

TOKENIZER = Path(fastchat.__file__).parent / "demo" / "checkpoint" / "tokenizer.model"


@pytest.fixture
def folder(golden_dir: Path, tmp_path: Path) -> Path:
    """A complete small checkpoint that a test may damage."""
    copy = tmp_path / "some-name"
    shutil.copytree(golden_dir / "yuan2" / "tiny-a", copy)
    shutil.copy(TOKENIZER, copy)
    return copy


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_loads_by_config_whatever_the_folder_is_called(folder: Path) -> None:
    model, tokenizer = load_model(str(folder), device="cpu")
    assert isinstance(model, YuanForCausalLM)
    assert not model.training
    assert tokenizer.eos_token == "<eod>"
    assert get_conversation_template(str(folder)).name == "yuan2"


def test_reads_bin_files(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])


def test_a_tied_head_may_be_absent(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("model.norm.weight"), "lacks the weights: model.norm.weight"),
        (lambda w: w.update({"model.foo": torch.zeros(3)}), "does not know: model.foo"),
        (
            lambda w: w.update({"model.norm.weight": torch.zeros(3)}),
            r"model.norm.weight \(3,\) instead of \(64,\)",
        ),
        (
            lambda w: w.update({"lm_head.weight": torch.ones_like(w["lm_head.weight"])}),
            "lm_head.weight differs",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], named: str
) -> None:
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=named):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"use_moe": True},
        {"moe_config": {"moe_num_experts": 32}},
        {"use_shareqk": True},
    ],
)
def test_other_networks_are_refused_by_name(folder: Path, values: dict[str, object]) -> None:
    edit_config(folder, **values)
    with pytest.raises(UnsupportedModelError, match=r"M32|share"):
        load_model(str(folder), device="cpu")


def damage_half(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_half, "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer.model"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"no"), "tokenizer"),
        (lambda f: edit_config(f, num_attention_heads=5), "num_attention_heads"),
        (lambda f: edit_config(f, hidden_size="wide"), "hidden_size is 'wide'"),
        (lambda f: edit_config(f, model_type="no-such-type"), "no-such-type"),
    ],
)
def test_damaged_folders_say_what_is_wrong(
    folder: Path, damage: Callable[[Path], object], named: str
) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=named):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("path", "error"),
    [("/no/such/folder", CheckpointError), ("no-such-owner/no-such-model", CheckpointError)],
)
def test_missing_folders_say_so(path: str, error: type[FastChatError]) -> None:
    with pytest.raises(error, match=path):
        load_model(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error is about having no CUDA device")
def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(SettingsError, match="--device cuda"):
        load_model(str(folder), device="cuda")
    with pytest.raises(SettingsError, match="--device is 'tpu'"):
        load_model(str(folder), device="tpu")


def test_the_name_decides_only_without_a_config(tmp_path: Path) -> None:
    named = tmp_path / "my-yuan2-chat"
    named.mkdir()
    assert isinstance(get_model_adapter(str(named)), Yuan2Adapter)
    (named / "config.json").write_text('{"model_type": "gpt2"}')
    assert type(get_model_adapter(str(named))) is BaseModelAdapter


def test_any_other_causal_model_loads(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=1920, n_positions=64, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    load_tokenizer(TOKENIZER.parent).save_pretrained(tmp_path)
    model, tokenizer = load_model(str(tmp_path), device="cpu")
    assert isinstance(model, GPT2LMHeadModel)
    assert tokenizer("你好")["input_ids"]


def test_generation_defaults_are_what_the_file_states(folder: Path) -> None:
    path = folder / "generation_config.json"
    assert generation_defaults(str(folder)) == {}
    stated = {"temperature": 0.3, "top_p": 0.5, "repetition_penalty": 1.1}
    path.write_text(json.dumps(stated | {"eos_token_id": 270}))
    assert generation_defaults(str(folder)) == stated
    path.write_text(json.dumps({"do_sample": False, "max_new_tokens": 9}))
    assert generation_defaults(str(folder)) == {"temperature": 0.0, "max_new_tokens": 9}


def test_an_adapter_is_merged_into_its_base(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False),
    ).eval()
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter)
    assert get_conversation_template(str(adapter)).name == "yuan2"
    model, tokenizer = load_model(str(adapter), device="cpu")
    assert tokenizer.eos_token == "<eod>"
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        torch.testing.assert_close(model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model(ids).logits, base, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/moved/away"}, "no model folder /moved/away"),
    ],
)
def test_an_adapter_without_its_base(
    folder: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    adapter = tmp_path / "adapter"
    model = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=named):
        load_model(str(adapter), device="cpu")
