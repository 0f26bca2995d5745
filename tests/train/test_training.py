"""Whole runs of a tiny model: what is learned, saved, resumed and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from fastchat.chat import YuanChatRenderer
from fastchat.data.rows import Row
from fastchat.errors import (
    CheckpointError,
    DataError,
    FastChatError,
    SettingsError,
    TrainingError,
)
from fastchat.model import load_tokenizer
from tests.train.conftest import Train, split_rows, write_talks


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def generate(folder: Path, *texts: str) -> str:
    tokenizer = load_tokenizer(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": text}
        for index, text in enumerate(texts)
    ]
    prompt = YuanChatRenderer(tokenizer).render(messages).ids
    output = model.generate(torch.tensor([prompt]), max_new_tokens=60, do_sample=False)
    return tokenizer.decode_ids(output[0, len(prompt) :].tolist())


def plain_loss(model: Any, rows: list[Row]) -> tuple[float, int]:
    """The summed loss of rows, one by one as they are, and their learned tokens."""
    total, count = 0.0, 0
    for row in rows:
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * row.learned
        count += row.learned
    return total, count


class StopAt(TrainerCallback):
    def __init__(self, *, step: int = 10**9, loss: float = 0.0) -> None:
        self.step = step
        self.loss = loss

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= state.global_step >= self.step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        control.should_training_stop |= (logs or {}).get("loss", 1e9) < self.loss


@pytest.mark.parametrize("mode", ["split_example_loss", "efficient_loss"])
def test_a_model_learns_a_conversation_by_heart_and_says_it(
    fine_tune: Train, tmp_path: Path, mode: str
) -> None:
    talk = ["你是谁?", "我是源2.0。", "再见", "再见! 😀"]
    data = write_talks(tmp_path / "one.json", [talk])
    metrics = fine_tune(
        [StopAt(loss=0.01)], data_path=data, max_steps=200, **{mode: True, "lazy_preprocess": True}
    )
    assert metrics["train_loss"] > 0
    out = tmp_path / "out"
    assert losses(out)[-1] < 0.01
    assert generate(out, *talk[:3]) == talk[3] + "<eod>"
    if mode == "split_example_loss":  # efficient_loss learns it behind <n>, not behind <sep>
        assert generate(out, *talk[:1]) == talk[1] + "<eod>"


def test_eight_rows_at_once_weigh_as_eight_accumulated(fine_tune: Train, tmp_path: Path) -> None:
    shapes = {"at_once": (8, 1), "accumulated": (1, 8), "between": (2, 4)}
    for name, (rows, steps) in shapes.items():
        fine_tune(
            output_dir=tmp_path / name,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps,
            max_steps=3,
            optim="sgd",
            learning_rate=0.1,
        )
    reference = weights(tmp_path / "at_once")
    for name in ("accumulated", "between"):
        torch.testing.assert_close(weights(tmp_path / name), reference, rtol=1e-4, atol=1e-6)
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "at_once"), rel=1e-4)


def test_the_loss_is_the_mean_over_all_learned_tokens(
    fine_tune: Train, tiny_model: Path, talks_file: Path, tmp_path: Path
) -> None:
    rows = split_rows(tiny_model, talks_file)
    total, count = plain_loss(AutoModelForCausalLM.from_pretrained(tiny_model), rows)
    assert len(rows) == 7
    fine_tune(per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=1)
    assert losses(tmp_path / "out")[0] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_a_resumed_run_ends_as_one_that_never_stopped(
    fine_tune: Train, tmp_path: Path, lora: bool
) -> None:
    flags = {
        "lora": lora,
        "per_device_train_batch_size": 2,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.3,
    }
    fine_tune(output_dir=tmp_path / "whole", **flags)
    stopped = tmp_path / "stopped"
    fine_tune([StopAt(step=4)], output_dir=stopped, **flags)
    assert len(losses(stopped)) == 4
    half_written = stopped / "checkpoint-5"  # as a run that was killed while saving leaves it
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"")
    fine_tune(output_dir=stopped, **flags)
    assert losses(stopped) == losses(tmp_path / "whole")
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    torch.testing.assert_close(
        weights(stopped, name), weights(tmp_path / "whole", name), rtol=0, atol=0
    )


def test_what_is_saved_is_what_was_loaded_but_for_the_weights(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    fine_tune(max_steps=1, save_strategy="steps", save_steps=1, model_max_length=64)
    for folder in (tmp_path / "out", tmp_path / "out" / "checkpoint-1"):
        for name in ("config.json", "generation_config.json"):
            saved = json.loads((folder / name).read_text())
            assert saved == json.loads((tiny_model / name).read_text()), (folder, name)
        assert (folder / "tokenizer.model").read_bytes() == (
            tiny_model / "tokenizer.model"
        ).read_bytes()
        before, after = weights(tiny_model), weights(folder)
        assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
        assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "out" / "saving.tmp").exists()


def test_lazy_and_eager_runs_are_the_same_run(fine_tune: Train, tmp_path: Path) -> None:
    for lazy in (False, True):
        fine_tune(
            output_dir=tmp_path / f"lazy_{lazy}",
            lazy_preprocess=lazy,
            max_steps=3,
            per_device_train_batch_size=2,
        )
    assert losses(tmp_path / "lazy_True") == losses(tmp_path / "lazy_False")


def test_checkpointed_activations_padding_on_the_left_and_grouping_change_no_loss(
    fine_tune: Train, tmp_path: Path
) -> None:
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "checkpointed": {"gradient_checkpointing": True},
        "left": {"padding_side": "left"},
        "grouped": {"group_by_length": True},
    }
    for name, flags in variants.items():
        fine_tune(output_dir=tmp_path / name, max_steps=2, per_device_train_batch_size=8, **flags)
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_bf16_on_the_cpu_trains_float32_weights(
    fine_tune: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fine_tune(max_steps=2, bf16=True, tf32=True)
    if not torch.accelerator.is_available():
        assert "--bf16 on the CPU" in caplog.text
        assert "--tf32 has no effect" in caplog.text
    assert all(w.dtype == torch.float32 for w in weights(tmp_path / "out").values())


@pytest.mark.parametrize("packing", [True, False])
def test_evaluation_has_figures_of_its_own(
    fine_tune: Train, tiny_model: Path, talks_file: Path, tmp_path: Path, packing: bool
) -> None:
    metrics = fine_tune(
        max_steps=2,
        packing=packing,
        eval_data_path=talks_file,
        evaluation_strategy="epoch",
        per_device_eval_batch_size=3,  # batches of unequal numbers of learned tokens
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    total, count = plain_loss(model, split_rows(tiny_model, talks_file))
    assert metrics["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    with pytest.raises(SettingsError, match="there is nothing to evaluate"):
        fine_tune(output_dir=tmp_path / "none", max_steps=1, eval_strategy="steps")


def test_a_loss_that_is_no_number_stops_the_run(fine_tune: Train, tmp_path: Path) -> None:
    with pytest.raises(FastChatError, match=r"The loss became nan in step \d.*--learning_rate"):
        fine_tune(max_steps=5, learning_rate=1e30, max_grad_norm=0)
    for packing in (True, False):
        with pytest.raises(TrainingError, match=r"at ('talk_\d'(, )?){4}; the run was stopped"):
            fine_tune(
                max_steps=3,
                learning_rate=1e30,
                max_grad_norm=0,
                per_device_train_batch_size=4,
                packing=packing,
            )
    assert not (tmp_path / "out" / "config.json").exists()


def test_files_of_several_forms_train_together(
    fine_tune: Train, talks_file: Path, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    items = json.loads(talks_file.read_text("utf-8"))
    parquet.write_table(pyarrow.Table.from_pylist(items), tmp_path / "talks.parquet")
    lines = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    ]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = fine_tune(
        data_path=[talks_file, tmp_path / "lines.jsonl", tmp_path / "talks.parquet"],
        data_weights=[1, 2, 0.5],
        eval_ratio=0.25,
        max_steps=2,
        per_device_train_batch_size=4,
    )
    assert len(losses(tmp_path / "out")) == 2
    assert metrics["eval_loss"] > 0


def test_errors_come_before_anything_is_saved(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    for problem, flags in (
        (DataError, {"data_path": tmp_path / "nowhere.json"}),
        (DataError, {"model_max_length": 3}),
        (CheckpointError, {"model_name_or_path": tmp_path / "nowhere"}),
        (SettingsError, {"learning_rate": 1e-3, "warmup_steps": -1}),
        (SettingsError, {"lr_scheduler_type": "spiral"}),
        (SettingsError, {"resume_from_checkpoint": True}),
        (SettingsError, {"resume_from_checkpoint": tiny_model}),
        (SettingsError, {"output_dir": tiny_model / "config.json"}),
    ):
        with pytest.raises(problem):
            fine_tune(max_steps=1, **flags)
    assert not (tmp_path / "out" / "config.json").exists()


def test_an_adapter_is_trained_and_saved_in_pefts_format(
    fine_tune: Train, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    fine_tune(lora=True, max_steps=3, lora_r=4, gradient_checkpointing=True)
    out = tmp_path / "out"
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert len(config["target_modules"]) == 7
    assert (out / "tokenizer.model").exists()
    assert not (out / "model.safetensors").exists()
    assert losses(out)[-1] < losses(out)[0]

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain = {name: weight.clone() for name, weight in base.state_dict().items()}
    merged = PeftModel.from_pretrained(base, str(out)).merge_and_unload().state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert len(changed) == 2 * 7
    assert all("proj" in name for name in changed)

    fine_tune(lora=True, max_steps=1, lora_weight_path=out, output_dir=tmp_path / "more", lora_r=64)
    assert json.loads((tmp_path / "more" / "adapter_config.json").read_text())["r"] == 4
    assert losses(tmp_path / "more")[0] < losses(out)[0]
