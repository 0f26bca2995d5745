"""Preference training: its loss is the textbook's, and models come to prefer what they should."""

from __future__ import annotations

import copy
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM

from fastchat.data.dataset import ItemDataset
from fastchat.data.pairs import HeldPairs, PairBuilder
from fastchat.data.preferences import Preference, iter_preferences
from fastchat.errors import DataError, SettingsError
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.learned_loss import CHUNK, token_cross_entropy
from fastchat.model.model_adapter import load_model
from fastchat.train.adapter import with_adapter
from fastchat.train.arguments import LoraArguments
from fastchat.train.dpo import dpo_settings, train
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.dpo_data import PairCollator, PairDataset
from fastchat.train.dpo_loss import answer_log_probs
from fastchat.train.dpo_task import base_is_reference, check_unsharded
from fastchat.train.dpo_trainer import DpoTrainer
from fastchat.train.loading import lay_out_flat
from fastchat.train.training_arguments import TrainingArguments

VOCABULARY = 60
Sequences = list[tuple[list[int], list[int], list[int]]]


class Letters:
    """A renderer whose tokens are characters: a real one, of a very small language."""

    def render(self, messages: Any) -> Any:
        return SimpleNamespace(ids=[ord(char) % VOCABULARY for char in messages[-1]["content"]])

    def answer_ids(self, answer: str) -> list[int]:
        return [*(ord(char) % VOCABULARY for char in answer), 0]


def preferences(seed: int) -> list[Preference]:
    """Pairs whose answers begin alike as often as not, of all lengths, one of them empty."""
    draw = random.Random(seed)

    def text(low: int, high: int) -> str:
        return "".join(draw.choices("abcdefgh", k=draw.randint(low, high)))

    pairs = []
    for number in range(4):
        start = text(0, 4) * (number % 2)
        prompt = ({"role": "user", "content": text(1, 9)},)
        pairs.append(Preference(str(number), prompt, start + text(1, 9), start + text(1, 3)))
    return [*pairs, Preference("empty", pairs[0].prompt, "", "abc")]


def dataset(pairs: list[Preference]) -> PairDataset:
    return PairDataset(ItemDataset([HeldPairs(pairs, PairBuilder(Letters(), 100))]))


def yuan() -> YuanForCausalLM:
    torch.manual_seed(1)
    return lively(
        YuanForCausalLM(
            YuanConfig(
                vocab_size=VOCABULARY,
                hidden_size=24,
                intermediate_size=40,
                num_hidden_layers=2,
                num_attention_heads=3,
                bos_token_id=1,
                eos_token_id=0,
                pad_token_id=0,
            )
        )
    )


def llama() -> LlamaForCausalLM:
    torch.manual_seed(1)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(VOCABULARY, num_attention_heads=3, **sizes))
    assert lay_out_flat(model)
    return lively(model)


def lively(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def trainer_of(
    model: Any, dpo: DpoArguments, pairs: PairDataset, folder: Path, *, asks: bool
) -> DpoTrainer:
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", remove_unused_columns=False
    )
    return DpoTrainer(
        dpo=dpo,
        pairs=[pairs] if asks else None,
        tokenizer=None,
        model=model,
        args=args,
        train_dataset=pairs,
        data_collator=PairCollator(),
    )


def textbook_log_prob(model: Any, prompt: list[int], answer: list[int]) -> tuple[Tensor, int]:
    ids = torch.tensor([prompt + answer])
    scores = log_softmax(model(input_ids=ids).logits[0, :-1], dim=-1)
    each = scores.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
    return each.sum(), len(answer)


def textbook_loss(policy: Any, reference: Any, pairs: list[Preference], dpo: DpoArguments) -> Any:
    """From four plain forward passes a pair: Rafailov et al., equation 7, and its variants."""
    letters, losses = Letters(), []
    for pair in pairs:
        prompt = letters.render(pair.prompt).ids
        ratios = []
        for answer in map(letters.answer_ids, (pair.chosen, pair.rejected)):
            ours, count = textbook_log_prob(policy, prompt, answer)
            with torch.no_grad():
                theirs, _ = textbook_log_prob(reference, prompt, answer)
            ratios.append((ours - theirs) / (count if dpo.loss_type == "ipo" else 1))
        gap = ratios[0] - ratios[1]
        if dpo.loss_type == "ipo":
            losses.append((gap - 0.5 / dpo.beta) ** 2)
            continue
        wrong = dpo.dpo_label_smoothing
        right = -logsigmoid(dpo.beta * gap)
        losses.append((1 - wrong) * right + wrong * -logsigmoid(-dpo.beta * gap))
    return torch.stack(losses).mean()


def gradients(model: Any) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


VARIANTS = [
    DpoArguments(beta=0.3),
    DpoArguments(beta=0.1, dpo_label_smoothing=0.2),
    DpoArguments(beta=0.5, loss_type="ipo"),
]


def assert_is_textbook(
    trainer: DpoTrainer, reference: Any, pairs: list[Preference], dpo: DpoArguments
) -> None:
    model = trainer.model
    batch = PairCollator()([trainer.train_dataset[number] for number in range(len(pairs))])
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    packed = gradients(model)
    model.zero_grad()
    expected = textbook_loss(model, reference, pairs, dpo)
    expected.backward()
    plain = gradients(model)
    assert abs(loss.item() - math.log(2)) > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert packed.keys() == plain.keys()
    scale = max(float(gradient.abs().max()) for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("dpo", VARIANTS)
@pytest.mark.parametrize("make", [yuan, llama])
def test_loss_and_gradients_are_those_of_four_plain_forward_passes(
    make: Callable[[], Any], dpo: DpoArguments, tmp_path: Path
) -> None:
    pairs, model = preferences(seed=3), make()
    start = copy.deepcopy(model)
    if make is llama:
        start.set_attn_implementation("sdpa")
    held = dataset(pairs)
    trainer = trainer_of(model, dpo, held, tmp_path, asks=True)
    held.references = trainer._ask_reference(held)
    lively(model)
    assert_is_textbook(trainer, start, pairs, dpo)


@pytest.mark.parametrize("dpo", VARIANTS)
def test_the_base_without_its_adapter_is_the_reference(dpo: DpoArguments, tmp_path: Path) -> None:
    pairs = preferences(seed=4)
    plain = SimpleNamespace(gradient_checkpointing=False)
    lora = LoraArguments(lora_dropout=0, lora_target_modules=["all", "filter"])
    model = with_adapter(yuan(), lora, plain)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.2)
    trainer = trainer_of(model, dpo, dataset(pairs), tmp_path, asks=False)
    assert_is_textbook(trainer, yuan(), pairs, dpo)


def test_answers_that_begin_alike_count_all_their_tokens(tmp_path: Path) -> None:
    prompt = ({"role": "user", "content": "abc"},)
    pairs = [Preference("p", prompt, "deff", "dega")]
    held, model = dataset(pairs), yuan()
    trainer = trainer_of(model, DpoArguments(), held, tmp_path, asks=True)
    found = trainer._ask_reference(held)
    for side, answer in enumerate(("deff", "dega")):
        ids = Letters().answer_ids(answer)
        expected, _ = textbook_log_prob(model, Letters().render(prompt).ids, ids)
        assert found[0, side] == pytest.approx(float(expected), rel=1e-5)


def test_the_reference_is_the_same_however_it_is_asked(tmp_path: Path) -> None:
    held = dataset(preferences(seed=5) * 3)
    trainer = trainer_of(yuan(), DpoArguments(), held, tmp_path, asks=True)
    whole = trainer._ask_reference(held)
    trainer.args.per_device_eval_batch_size = 2
    torch.testing.assert_close(torch.tensor(trainer._ask_reference(held)), torch.tensor(whole))


@pytest.mark.parametrize("learns_weight", [True, False])
def test_each_tokens_loss_in_chunks_is_that_of_all_logits(learns_weight: bool) -> None:
    torch.manual_seed(0)
    count = 2 * CHUNK + 7
    hidden = torch.randn(count, 16, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, requires_grad=learns_weight)
    targets, slopes = torch.randint(0, VOCABULARY, (count,)), torch.randn(count)
    learned = [hidden, weight] if learns_weight else [hidden]
    chunked = token_cross_entropy(hidden, weight, targets)
    plain = cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(
        torch.autograd.grad((chunked * slopes).sum(), learned),
        torch.autograd.grad((plain * slopes).sum(), learned),
        rtol=1e-4,
        atol=1e-5,
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert token_cross_entropy(hidden, weight, targets).dtype == torch.float32


def test_means_are_over_an_answers_own_tokens() -> None:
    losses, answer_of = torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([0, 1, 1, 0])
    assert answer_log_probs(losses, answer_of, 1, mean=False).tolist() == [[-6, -5]]
    assert answer_log_probs(losses, answer_of, 1, mean=True).tolist() == [[-3, -2.5]]


# ---- whole runs --------------------------------------------------------------------------

TALK = [
    {"prompt": "你是谁?", "chosen": "我是源2.0。", "rejected": "我是谁?"},
    {"prompt": "Who are you?", "chosen": "I am Yuan.", "rejected": "I am nobody."},
    {"prompt": "1+1=?", "chosen": "2", "rejected": "3"},
    {"prompt": "Tell me a story.", "chosen": "Once upon a time.", "rejected": "No."},
]
Run = Callable[..., dict[str, float]]


@pytest.fixture
def prefer(tiny_model: Path, tmp_path: Path) -> Run:
    """Trains the tiny model on preferences; keywords are flags."""

    def run(**flags: Any) -> dict[str, float]:
        data = tmp_path / "pairs.json"
        data.write_text(json.dumps(TALK, ensure_ascii=False))
        values = {
            "model_name_or_path": tiny_model,
            "data_path": data,
            "output_dir": tmp_path / "out",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "constant",
            "report_to": "none",
            **flags,
        }
        return train([text for name, value in values.items() for text in (f"--{name}", str(value))])

    return run


def curve(folder: Path, name: str = "loss") -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_begins_at_ln_2_and_pulls_the_answers_apart(
    prefer: Run, tmp_path: Path, lora: bool
) -> None:
    flags = {"use_lora": True, "lora_dropout": 0, "learning_rate": 2e-2} if lora else {}
    prefer(max_steps=8, eval_ratio=0.25, per_device_train_batch_size=4, **flags)
    out = tmp_path / "out"
    assert curve(out)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve(out, "rewards/margins")[0] == pytest.approx(0, abs=1e-4)
    assert curve(out)[-1] < 0.6
    assert curve(out, "rewards/margins")[-1] > 0.2
    assert curve(out, "rewards/accuracies")[-1] == 1
    assert curve(out, "logps/chosen")[-1] < 0
    margins = [
        chosen - rejected
        for chosen, rejected in zip(
            curve(out, "rewards/chosen"), curve(out, "rewards/rejected"), strict=True
        )
    ]
    assert margins == pytest.approx(curve(out, "rewards/margins"), abs=1e-5)
    assert (out / "adapter_config.json").exists() is lora
    assert load_model(str(out), device="cpu")


def test_evaluation_has_figures_of_its_own(prefer: Run, tmp_path: Path) -> None:
    metrics = prefer(max_steps=2, eval_ratio=0.5, use_lora=True, sample_generations=1)
    assert {"eval_loss", "eval_rewards/margins", "eval_rewards/accuracies"} <= metrics.keys()
    assert len(curve(tmp_path / "out", "eval_loss")) == 1
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "beta" in shown


def test_pairs_at_once_weigh_as_pairs_one_by_one(prefer: Run, tmp_path: Path) -> None:
    for name, (size, steps) in {"at_once": (4, 1), "one_by_one": (1, 4), "two": (2, 2)}.items():
        prefer(
            output_dir=tmp_path / name,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=3,
            optim="sgd",
            learning_rate=0.1,
        )
    for name in ("one_by_one", "two"):
        assert curve(tmp_path / name) == pytest.approx(curve(tmp_path / "at_once"), rel=1e-4)
        assert curve(tmp_path / name, "grad_norm") == pytest.approx(
            curve(tmp_path / "at_once", "grad_norm"), rel=1e-4
        )


def test_a_resumed_run_keeps_the_reference_that_it_began_with(prefer: Run, tmp_path: Path) -> None:
    flags = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    prefer(output_dir=tmp_path / "whole", **flags)
    prefer(
        output_dir=tmp_path / "again",
        resume_from_checkpoint=tmp_path / "whole" / "checkpoint-2",
        **flags,
    )
    assert curve(tmp_path / "again") == pytest.approx(curve(tmp_path / "whole"), rel=1e-6)


def test_an_adapter_that_has_learned_is_its_own_reference(prefer: Run, tmp_path: Path) -> None:
    flags = {"use_lora": True, "lora_dropout": 0, "max_steps": 3, "learning_rate": 2e-2}
    prefer(output_dir=tmp_path / "one", **flags)
    prefer(output_dir=tmp_path / "two", lora_weight_path=tmp_path / "one", **flags)
    assert curve(tmp_path / "two")[0] == pytest.approx(math.log(2), abs=1e-4)
    assert not base_is_reference(LoraArguments(lora_bias="all"))
    assert base_is_reference(LoraArguments())


def test_bins_checkpointed_activations_and_a_recipe_go_with_it(prefer: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("beta: 0.2\nuse_lora: true\ntokens_per_batch: 60\n")
    prefer(config=recipe, max_steps=2, gradient_checkpointing=True, group_by_length=True)
    assert curve(tmp_path / "out")[0] == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(DataError, match=r"--tokens_per_batch is 5, but one pair has"):
        prefer(tokens_per_batch=5)


# ---- what is refused -----------------------------------------------------------------------

NEEDED = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--beta 0", "--beta is 0.0; a number above 0"),
        ("--dpo_label_smoothing 0.5", "0.5; a share from 0 to below 0.5"),
        ("--dpo_label_smoothing 0.1 --loss_type ipo", "means nothing with --loss_type ipo"),
        ("--loss_type hinge", "hinge"),
        ("--lora_r 4", "Give --use_lora True"),
        ("--q_lora True", "Give --use_lora True"),
        ("--packing False", "--packing False does not go with preferences"),
        ("--efficient_loss True", "--efficient_loss means nothing here"),
    ],
)
def test_flags_that_do_not_go_together(flags: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        dpo_settings([*NEEDED, *flags.split()])


def test_flags_come_in_both_spellings() -> None:
    settings = dpo_settings([*NEEDED, "--use-lora", "--loss-type", "ipo", "--lora-r", "4"])
    assert settings.extra == DpoArguments(use_lora=True, loss_type="ipo")
    assert settings.lora == LoraArguments(lora_r=4)
    assert dpo_settings(NEEDED).lora is None


@pytest.mark.parametrize(
    "engine", [{"deepspeed": {"zero_optimization": {"stage": 3}}}, {"fsdp": ["full_shard"]}]
)
def test_weights_that_are_spread_cannot_be_asked_beforehand(engine: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"--use_lora True"):
        check_unsharded(SimpleNamespace(**({"deepspeed": None, "fsdp": ""} | engine)))


def test_a_model_that_cannot_read_two_answers_to_a_prompt_is_refused(tmp_path: Path) -> None:
    options = {"model": yuan(), "data_collator": len}
    with pytest.raises(SettingsError, match="type yuan cannot be trained on preferences"):
        DpoTrainer(dpo=DpoArguments(), pairs=None, tokenizer=None, **options)


def test_help_and_errors_come_without_torch(tmp_path: Path) -> None:
    probe = (
        "import sys; from fastchat.train.dpo import dpo_settings\n"
        f"dpo_settings({NEEDED!r}); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
    data = tmp_path / "pairs.json"
    data.write_text('[{"prompt": "Hi", "chosen": "Hello"}]')
    with pytest.raises(DataError, match=r"pairs\.json: sample 1 .*has no 'rejected'"):
        list(iter_preferences(data))
