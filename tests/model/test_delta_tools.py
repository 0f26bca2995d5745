"""Merging adapters, making and applying deltas, converting: real folders, read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import fastchat
from fastchat.errors import CheckpointError, SettingsError
from fastchat.model import YuanForCausalLM, apply_delta, apply_lora, convert_fp16, make_delta
from fastchat.model.delta import DELTA_FILE, bits, xor
from fastchat.model.model_adapter import load_model
from fastchat.model.weight_files import ShardWriter, WeightFiles

TOKENIZER = Path(fastchat.__file__).parent / "demo" / "checkpoint" / "tokenizer.model"
ROWS = torch.arange(20).view(2, 10)


def save(model: YuanForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)
    return folder


@pytest.fixture
def base(random_model, tmp_path) -> Path:
    return save(random_model(), tmp_path / "base")


@pytest.fixture
def target(base, tmp_path) -> Path:
    """The base after some training."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.01)
    return save(model, tmp_path / "target")


def adapter(base: Path, folder: Path, **options) -> Path:
    """A trained adapter: nothing in it is at its start."""
    settings = {"r": 4, "target_modules": ["q_proj", "k_proj", "down_proj"]} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ROWS).logits


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    with WeightFiles(folder) as weights:
        return {name: weights.read(name) for name in weights.names}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(bits(one[name]), bits(other[name]))
        for name in one
    )


# Adapters


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "use_dora": True},
        {"bias": "all"},
        {"target_modules": ["v_proj", "conv1", "conv2"]},
        {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"k_proj": 2}},
    ],
    ids=["plain", "dora", "bias", "filter", "patterns"],
)
def test_merged_is_base_and_adapter(base, tmp_path, options):
    lora, merged = adapter(base, tmp_path / "lora", **options), tmp_path / "merged"
    with torch.no_grad():
        apart = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora)
    said = apply_lora.apply_lora(str(base), str(merged), str(lora))
    model, tokenizer = load_model(str(merged), device="cpu")
    torch.testing.assert_close(logits(model), logits(apart), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        logits(model), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-2
    )
    assert tokenizer.eos_token == "<eod>"
    assert "merged == base + adapter" in said
    assert weights_of(merged).keys() == load_file(base / "model.safetensors").keys()
    assert (merged / "generation_config.json").exists()


def test_saves_in_the_bases_format(base, tmp_path):
    half = tmp_path / "half"
    convert_fp16.convert(str(base), str(half), "bfloat16")
    lora = adapter(half, tmp_path / "lora")
    apply_lora.apply_lora(str(half), str(tmp_path / "merged"), str(lora))
    merged, before = weights_of(tmp_path / "merged"), weights_of(half)
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    name = "model.layers.0.self_attn.q_proj.weight"
    values = load_file(lora / "adapter_model.safetensors")
    module = f"base_model.model.{name.removesuffix('.weight')}"
    a, b = (values[f"{module}.lora_{matrix}.weight"] for matrix in "AB")
    alpha = json.loads((lora / "adapter_config.json").read_text())["lora_alpha"]
    exact = before[name].float() + alpha / 4 * (b @ a)
    torch.testing.assert_close(merged[name], exact.bfloat16())


def test_merging_an_adapter_that_says_nothing_changes_nothing(base, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["v_proj"])
    )
    model.save_pretrained(tmp_path / "lora")
    apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(tmp_path / "lora"))
    assert same(weights_of(tmp_path / "merged"), weights_of(base))


def test_another_models_adapter_is_refused_by_name_and_shape(base, random_model, tmp_path):
    other = save(random_model(hidden_size=36, num_hidden_layers=3), tmp_path / "other")
    lora = adapter(other, tmp_path / "lora")
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down_proj with 36 outputs for 24"):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))
    lora = adapter(save(random_model(num_hidden_layers=3), tmp_path / "deep"), tmp_path / "lora2")
    with pytest.raises(CheckpointError, match=r"layers\.2\.\S+, which the base does not have"):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))
    assert not (tmp_path / "merged").exists()


def test_an_adapter_without_its_weights_is_refused(base, tmp_path):
    lora = adapter(base, tmp_path / "lora")
    values = load_file(lora / "adapter_model.safetensors")
    save_file(dict(list(values.items())[1:]), lora / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="lacks weights that its config names"):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(base, tmp_path, value):
    lora = adapter(base, tmp_path / "lora")
    values = load_file(lora / "adapter_model.safetensors")
    next(iter(values.values())).fill_(value)
    save_file(values, lora / "adapter_model.safetensors")
    with pytest.raises(CheckpointError):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora"]


def test_what_differs_by_more_than_allowed_is_not_saved(base, tmp_path, monkeypatch):
    monkeypatch.setattr(apply_lora, "ROUNDING", 0.0)
    lora = adapter(base, tmp_path / "lora")
    with pytest.raises(CheckpointError, match="nothing was saved"):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"modules_to_save": ["lm_head"]}, "with modules_to_save"),
    ],
)
def test_other_kinds_of_adapters_are_refused(base, tmp_path, change, message):
    lora = adapter(base, tmp_path / "lora")
    config = lora / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        apply_lora.apply_lora(str(base), str(tmp_path / "merged"), str(lora))


# Targets


def test_a_target_is_replaced_only_by_its_own_run(base, target, tmp_path):
    delta = tmp_path / "delta"
    make_delta.make_delta(str(base), str(target), str(delta))
    make_delta.make_delta(str(base), str(target), str(delta))
    with pytest.raises(SettingsError, match="holds something else"):
        make_delta.make_delta(str(target), str(base), str(delta))
    with pytest.raises(SettingsError, match="are the same folder"):
        convert_fp16.convert(str(base), str(base))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(SettingsError, match="Name another target"):
        convert_fp16.convert(str(base), str(tmp_path / "full"))
    (tmp_path / "empty").mkdir()
    convert_fp16.convert(str(base), str(tmp_path / "empty"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["base", "delta", "empty", "full", "target"]


# Deltas


@given(
    st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)), min_size=1),
    st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_xor_gives_any_value_back(pairs, dtype):
    whole = torch.tensor(pairs, dtype=torch.int32).to(torch.int16)
    base, target = whole[:, 0].view(dtype), whole[:, 1].view(dtype)
    assert torch.equal(bits(base) ^ xor(base, target), bits(target))


def test_a_difference_of_numbers_would_not_do():
    base, target = torch.tensor([1.0]), torch.tensor([1e-9])
    assert base + (target - base) != target


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_base_and_delta_are_the_target(base, target, tmp_path, dtype):
    if dtype is not None:
        convert_fp16.convert(str(target), str(tmp_path / "half"), dtype)
        target = tmp_path / "half"
    make_delta.make_delta(str(base), str(target), str(tmp_path / "delta"))
    said = apply_delta.apply_delta(str(base), str(tmp_path / "again"), str(tmp_path / "delta"))
    assert same(weights_of(tmp_path / "again"), weights_of(target))
    assert "bit by bit" in said
    model, _ = load_model(str(tmp_path / "again"), device="cpu")
    expected, _ = load_model(str(target), device="cpu")
    assert torch.equal(logits(model), logits(expected))
    assert not (tmp_path / "again" / DELTA_FILE).exists()


def test_tensors_that_the_base_lacks_are_held_whole(random_model, tmp_path):
    base = save(random_model(num_hidden_layers=1), tmp_path / "base")
    target = save(random_model(num_hidden_layers=2, vocab_size=70), tmp_path / "target")
    make_delta.make_delta(str(base), str(target), str(tmp_path / "delta"))
    facts = json.loads((tmp_path / "delta" / DELTA_FILE).read_text())
    assert "lm_head.weight" in facts["whole"]
    assert "model.layers.0.mlp.up_proj.weight" not in facts["whole"]
    apply_delta.apply_delta(str(base), str(tmp_path / "again"), str(tmp_path / "delta"))
    assert same(weights_of(tmp_path / "again"), weights_of(target))


def test_a_delta_goes_with_its_base_only(base, target, tmp_path):
    make_delta.make_delta(str(base), str(target), str(tmp_path / "delta"))
    with pytest.raises(CheckpointError, match="made from another base"):
        apply_delta.apply_delta(str(target), str(tmp_path / "again"), str(tmp_path / "delta"))
    assert not (tmp_path / "again").exists()


def test_a_damaged_delta_is_noticed(base, target, tmp_path):
    make_delta.make_delta(str(base), str(target), str(tmp_path / "delta"))
    values = load_file(tmp_path / "delta" / "model.safetensors")
    values["model.norm.weight"][0] ^= 1
    save_file(values, tmp_path / "delta" / "model.safetensors")
    with pytest.raises(CheckpointError, match="delta's files are damaged"):
        apply_delta.apply_delta(str(base), str(tmp_path / "again"), str(tmp_path / "delta"))
    assert not (tmp_path / "again").exists()


def test_fastchats_deltas_are_added(base, target, tmp_path):
    delta = tmp_path / "delta"
    shutil.copytree(target, delta)
    here, there = weights_of(base), weights_of(target)
    change = {name: (there[name] - here[name]).half() for name in there}
    save_file(change, delta / "model.safetensors", metadata={"format": "pt"})
    apply_delta.apply_delta(str(base), str(tmp_path / "again"), str(delta))
    for name, value in weights_of(tmp_path / "again").items():
        torch.testing.assert_close(value, (here[name] + change[name].float()).half())


# Formats


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_converts_to_what_the_loader_reads(base, tmp_path, dtype):
    convert_fp16.convert(str(base), str(tmp_path / "half"), dtype)
    model, _ = load_model(str(tmp_path / "half"), device="cpu")
    assert model.dtype == getattr(torch, dtype)
    expected = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    assert torch.equal(logits(model), logits(expected))


def test_values_beyond_float16_are_an_error(base, tmp_path, capsys):
    values = load_file(base / "model.safetensors")
    values["model.norm.weight"][0] = 70000.0
    save_file(values, base / "model.safetensors", metadata={"format": "pt"})
    argv = ["--in-folder", str(base), "--out_folder", str(tmp_path / "half")]
    assert convert_fp16.main(argv) == CheckpointError.exit_status
    assert "model.norm.weight holds values up to 7e+04" in capsys.readouterr().err
    assert not (tmp_path / "half").exists()
    assert convert_fp16.main([*argv, "--dtype", "bfloat16"]) == 0


def test_a_tied_output_matrix_that_is_left_out_is_written(base, tmp_path):
    values = load_file(base / "model.safetensors")
    del values["lm_head.weight"]
    save_file(values, base / "model.safetensors", metadata={"format": "pt"})
    convert_fp16.convert(str(base), str(tmp_path / "half"))
    written = load_file(tmp_path / "half" / "model.safetensors")
    assert torch.equal(written["lm_head.weight"], written["model.embed_tokens.weight"])


# Weight files


@pytest.mark.parametrize("limit", [1, 5_000, 10**9])
def test_shards_are_read_as_they_were_written(base, tmp_path, limit):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(base / "config.json", copy)
    writer = ShardWriter(copy, shard_bytes=limit)
    before = weights_of(base)
    for name, tensor in before.items():
        writer.add(name, tensor)
    writer.finish()
    assert same(weights_of(copy), before)
    files = list(copy.glob("*.safetensors"))
    assert len(files) == len(before) if limit == 1 else len(files) < len(before)
    model = AutoModelForCausalLM.from_pretrained(copy)
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(base)))


def test_bin_shards_are_read(base):
    values = load_file(base / "model.safetensors")
    before = weights_of(base)
    (base / "model.safetensors").unlink()
    values["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    names = list(values)
    files = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, held in files.items():
        torch.save({name: values[name] for name in held}, base / file)
    places = {name: file for file, held in files.items() for name in held}
    index = base / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    torch.save({"learning_rate": 1.0}, base / "training_args.bin")
    assert same(weights_of(base), before)
    (base / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointError, match=r"lacks pytorch_model-2\.bin, named in"):
        WeightFiles(base)


def test_a_damaged_file_is_an_error(base):
    (base / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        WeightFiles(base)
    (base / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        WeightFiles(base)


# Command lines


def test_command_lines(base, target, tmp_path, capsys):
    lora = adapter(base, tmp_path / "lora")
    runs = [
        (make_delta, f"--base-model-path {base} --target_model_path {target} --delta d"),
        (apply_delta, f"--base {base} --target t --delta-path d --low-cpu-mem"),
        (apply_lora, f"--base-model-path {base} --target m --lora {lora}"),
        (convert_fp16, f"--in-folder {base} --out-folder h"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for module, argv in runs:
            assert module.main(argv.split()) == 0
        assert capsys.readouterr().out.count("\n") == len(runs)
        assert apply_lora.main(f"--base {base} --target x --lora {base}".split()) == 1
        assert apply_delta.main(["--base", "no", "--target", "x", "--delta", "d"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: ")
    assert "no adapter_config.json" in errors[0]
    assert "There is no model folder no" in errors[1]
