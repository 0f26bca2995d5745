"""Adapters: which modules they are put on, what is saved, and how they are gone on with."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TrainerCallback

from fastchat.chat import YuanChatRenderer
from fastchat.errors import SettingsError
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer
from fastchat.model.model_adapter import load_model
from fastchat.train.adapter import check_adapter_settings, with_adapter
from fastchat.train.arguments import LoraArguments
from tests.train.conftest import Train, write_talks

PLAIN = SimpleNamespace(gradient_checkpointing=False, deepspeed=None, fsdp="")
IDS = torch.tensor([[5, 9, 33, 2, 71, 8, 8, 40]])


class Logits(TrainerCallback):
    """Keeps what the trained model says before it is saved."""

    logits: torch.Tensor

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"].eval()
        with torch.no_grad():
            self.logits = model(input_ids=IDS).logits


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def adapted_modules(model: Any) -> set[str]:
    return {name.partition(".lora_A")[0] for name, _ in model.named_modules() if ".lora_A." in name}


def yuan(**sizes: int) -> YuanForCausalLM:
    torch.manual_seed(0)
    defaults = {"vocab_size": 80, "hidden_size": 24, "intermediate_size": 40}
    return YuanForCausalLM(
        YuanConfig(
            **(defaults | {"num_hidden_layers": 2, "num_attention_heads": 3} | sizes),
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


@pytest.fixture
def wordy_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with an embedding as large as a trained one's: it stays as it is here."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(25)
    model.save_pretrained(tmp_path / "wordy")
    load_tokenizer(tiny_model).save_pretrained(tmp_path / "wordy")
    return tmp_path / "wordy"


def test_a_conversation_is_learned_by_heart_and_every_reader_loads_the_same_model(
    fine_tune: Train, wordy_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    talk = ["你是谁?", "我是源2.0。", "再见", "再见!"]
    data = write_talks(tmp_path / "one.json", [talk])
    watch = Logits()
    fine_tune(
        [watch],
        lora=True,
        model_name_or_path=wordy_model,
        data_path=data,
        max_steps=70,
        lora_r=32,
        lora_alpha=32,
        lora_dropout=0,
        config="{lora_target_modules: [all, filter]}",
    )
    out = tmp_path / "out"
    assert losses(out)[-1] < 0.1
    stock = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(wordy_model), str(out))
    torch.testing.assert_close(logits(stock), watch.logits, rtol=0, atol=0)
    served, tokenizer = load_model(str(out), device="cpu")
    torch.testing.assert_close(logits(served), watch.logits, rtol=1e-4, atol=1e-4)
    prompt = YuanChatRenderer(tokenizer).render([{"role": "user", "content": talk[0]}]).ids
    answer = served.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)
    assert tokenizer.decode_ids(answer[0, len(prompt) :].tolist()) == talk[1] + "<eod>"


@pytest.mark.parametrize(
    ("targets", "in_a_layer"),
    [
        (None, 7),
        (["all"], 7),
        (["all", "filter"], 9),
        (["filter"], 2),
        (["q_proj", "k_proj", "all"], 7),
        (["conv2", "down_proj"], 2),
    ],
)
def test_modules_are_named_one_by_one_or_by_group(
    targets: list[str] | None, in_a_layer: int
) -> None:
    model = with_adapter(yuan(), LoraArguments(lora_target_modules=targets), PLAIN)
    assert len(adapted_modules(model)) == 2 * in_a_layer


@pytest.mark.parametrize("flags", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_base_and_adapter_are_the_merged_model_on_the_filter_too(flags: dict[str, Any]) -> None:
    lora = LoraArguments(lora_target_modules=["all", "filter"], lora_r=4, lora_dropout=0, **flags)
    model = with_adapter(yuan(), lora, PLAIN)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.2)
    both = logits(model)
    with model.disable_adapter():
        base = logits(model)
    torch.testing.assert_close(base, logits(yuan()), rtol=0, atol=0)
    assert not torch.allclose(both, base, atol=1e-3)
    merged = model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(logits(merged), both, rtol=1e-4, atol=1e-5)


def test_another_models_linear_layers_are_all_adapted() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=80,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
        )
    )
    with pytest.raises(SettingsError, match=r"names filter, which this model \(llama\).*all alone"):
        with_adapter(model, LoraArguments(lora_target_modules=["filter"]), PLAIN)
    adapted = adapted_modules(with_adapter(model, LoraArguments(), PLAIN))
    assert len(adapted) == 2 * 7
    assert not any("lm_head" in name for name in adapted)


@pytest.mark.parametrize("half", ["q_proj", "k_proj"])
def test_half_of_the_interleaved_heads_is_warned_of(
    half: str, caplog: pytest.LogCaptureFixture
) -> None:
    with_adapter(yuan(), LoraArguments(lora_target_modules=[half, "v_proj"]), PLAIN)
    assert f"{half} without its other half" in caplog.text
    caplog.clear()
    with_adapter(yuan(), LoraArguments(lora_target_modules=["q_proj", "k_proj"]), PLAIN)
    assert not caplog.text


@pytest.mark.parametrize("name", ["query_key_value", "lm_head"])
def test_a_module_that_cannot_be_adapted_is_an_error_that_names_those_that_can(name: str) -> None:
    lora = LoraArguments(lora_target_modules=["q_proj", "k_proj", name])
    with pytest.raises(SettingsError, match=rf"names {name}, which.*conv1.*k_proj, o_proj.*filter"):
        with_adapter(yuan(), lora, PLAIN)


@pytest.mark.parametrize(
    ("name", "value"), [("lora_r", 0), ("lora_alpha", -1), ("lora_dropout", 1.0)]
)
def test_numbers_that_mean_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"--{name} is {value}"):
        LoraArguments(**{name: value})


def test_checkpointed_activations_change_no_loss(fine_tune: Train, tmp_path: Path) -> None:
    for checkpointed in (True, False):
        fine_tune(
            lora=True,
            output_dir=tmp_path / str(checkpointed),
            gradient_checkpointing=checkpointed,
            max_steps=3,
            lora_dropout=0,
        )
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=1e-5)


def test_every_checkpoint_is_an_adapter_in_pefts_format(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    fine_tune(lora=True, max_steps=2, save_strategy="steps", save_steps=1, use_dora=True)
    for folder in (tmp_path / "out" / "checkpoint-1", tmp_path / "out" / "checkpoint-2"):
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(tiny_model)
        assert config["use_dora"] is True
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        assert len(adapted_modules(PeftModel.from_pretrained(base, str(folder)))) == 14


def test_an_adapter_goes_on_as_it_was_made(
    fine_tune: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {"lora": True, "max_steps": 3, "lora_dropout": 0, "per_device_train_batch_size": 8}
    fine_tune(lora_r=4, output_dir=tmp_path / "one", **flags)
    caplog.clear()
    fine_tune(
        lora_r=16,
        lora_alpha=4,
        lora_target_modules="v_proj",
        lora_weight_path=tmp_path / "one",
        output_dir=tmp_path / "two",
        **flags,
    )
    (note,) = [line.getMessage() for line in caplog.records if "stays as it" in line.getMessage()]
    assert "--lora_r 16 (it has 4)" in note
    assert "--lora_alpha 4 (it has 16)" in note
    assert "--lora_target_modules (it adapts down_proj" in note
    assert "dropout" not in note
    config = json.loads((tmp_path / "two" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], len(config["target_modules"])) == (4, 16, 7)
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[-1]


def test_another_models_adapter_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    with_adapter(yuan(), LoraArguments(), PLAIN).save_pretrained(tmp_path)
    again = LoraArguments(lora_weight_path=str(tmp_path))
    with pytest.raises(SettingsError, match=r"gate_proj with 24 inputs where it has 36.* more\."):
        with_adapter(yuan(hidden_size=36), again, PLAIN)
    with pytest.raises(SettingsError, match=r"layers\.1\.mlp\.\w+, which this model does not have"):
        with_adapter(yuan(num_hidden_layers=1), again, PLAIN)
    assert with_adapter(yuan(), again, PLAIN)


def test_a_folder_without_an_adapter_is_refused_before_the_data_are_read(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    for folder in (tiny_model, tmp_path / "nowhere"):
        with pytest.raises(
            SettingsError, match=r"--lora_weight_path .*(no adapter|cannot be read)"
        ):
            fine_tune(lora=True, lora_weight_path=folder, data_path=tmp_path / "none.json")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(SettingsError, match="type 'IA3'"):
        check_adapter_settings(LoraArguments(lora_weight_path=str(tmp_path)), PLAIN)


@pytest.mark.parametrize(
    "engine", [{"deepspeed": {"zero_optimization": {"stage": 3}}}, {"fsdp": ["full_shard"]}]
)
def test_four_bits_that_no_engine_can_spread_are_refused(engine: dict[str, Any]) -> None:
    args = SimpleNamespace(**(vars(PLAIN) | engine))
    with pytest.raises(SettingsError, match=r"--q_lora does not work with .*ZeRO-2"):
        check_adapter_settings(LoraArguments(q_lora=True), args)
    check_adapter_settings(LoraArguments(), args)


def test_four_bits_train_on_the_cpu_are_saved_and_gone_on_with(
    fine_tune: Train, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("bitsandbytes")
    caplog.set_level(logging.WARNING)
    flags: dict[str, Any] = {"lora": True, "q_lora": True, "max_steps": 2, "lora_dropout": 0}
    fine_tune(output_dir=tmp_path / "one", **flags)
    fine_tune(
        output_dir=tmp_path / "two",
        lora_weight_path=tmp_path / "one",
        gradient_checkpointing=True,
        use_dora=True,
        **flags,
    )
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[0]
    assert "gemm_4bit" not in caplog.text
    served, _ = load_model(str(tmp_path / "two"), device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    changed = (logits(served) - logits(plain)).abs().max()
    assert 0 < changed < 10
