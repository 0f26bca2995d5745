"""The loss of preferences is the textbook's, and so are its gradients."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM

from fastchat.chat import ChatRenderer
from fastchat.data.dataset import ItemDataset
from fastchat.data.pairs import HeldPairs, PairBuilder
from fastchat.data.preferences import Preference
from fastchat.errors import SettingsError
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.learned_loss import CHUNK, token_cross_entropy
from fastchat.train.adapter import with_adapter
from fastchat.train.arguments import LoraArguments
from fastchat.train.dpo_arguments import DpoArguments
from fastchat.train.dpo_data import PairCollator, PairDataset
from fastchat.train.dpo_loss import answer_log_probs
from fastchat.train.dpo_trainer import DpoTrainer
from fastchat.train.loading import lay_out_flat
from fastchat.train.training_arguments import TrainingArguments

VOCABULARY = 60
Sequences = list[tuple[list[int], list[int], list[int]]]


class Letters(ChatRenderer):
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
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=3, **sizes))
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
        assert found[0, side] == pytest.approx(expected.item(), rel=1e-5)


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


def test_a_model_that_cannot_read_two_answers_to_a_prompt_is_refused() -> None:
    options = {"model": yuan(), "data_collator": len}
    with pytest.raises(SettingsError, match="type yuan cannot be trained on preferences"):
        DpoTrainer(dpo=DpoArguments(), pairs=None, tokenizer=None, **options)
