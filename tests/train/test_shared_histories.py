"""Conversations in one row train as the rows that a server would feed, one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from fastchat.chat import ChatRenderer, JinjaChatRenderer, YuanChatRenderer
from fastchat.data.dataset import row_builder
from fastchat.data.rows import LossMode, Row
from fastchat.data.sample import Sample
from fastchat.data.tree import merge
from fastchat.model import YuanTokenizer, load_tokenizer
from fastchat.train.adapter import with_adapter
from fastchat.train.arguments import LoraArguments
from fastchat.train.batching import ForestCollator
from fastchat.train.loading import lay_out_flat
from tests.talks import conversations, talk
from tests.train.conftest import OTHER_TEMPLATE

CHECKPOINTED = {"use_reentrant": False}


def yuan(folder: Path, *, checkpointing: bool = False, lora: bool = False) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    if checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTED)
    if lora:
        torch.manual_seed(0)
        arguments = LoraArguments(lora_dropout=0.0)
        options = SimpleNamespace(gradient_checkpointing=checkpointing, deepspeed=None, fsdp="")
        model = with_adapter(model, arguments, options)
        with torch.no_grad():  # an adapter begins as nothing
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.1)
    return model


def llama(folder: Path, *, checkpointing: bool = False) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(load_tokenizer(folder)),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).train()
    if checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTED)
    return model


MODELS: dict[str, Callable[[Path], Any]] = {
    "yuan": yuan,
    "yuan, checkpointed": lambda folder: yuan(folder, checkpointing=True),
    "yuan with lora": lambda folder: yuan(folder, lora=True),
    "yuan with lora, checkpointed": lambda folder: yuan(folder, lora=True, checkpointing=True),
    "llama": llama,
    "llama, checkpointed": lambda folder: llama(folder, checkpointing=True),
}


def rows_of(sample: Sample, tokenizer: YuanTokenizer, renderer: ChatRenderer) -> list[Row]:
    builder = row_builder(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 400)
    rows = [builder.row(sample, target) for target in builder.targets(sample)]
    return [row for row in rows if row is not None]


def one_by_one(model: Any, rows: list[Row]) -> Tensor:
    """The mean loss over learned tokens, of rows that are read alone; its gradient is left."""
    total, learned = torch.zeros(()), sum(row.learned for row in rows)
    for row in rows:
        ids = torch.tensor([row.input_ids])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :-1]
        loss = cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum") / learned
        loss.backward()
        total += loss.detach()
    return total


def in_one_row(model: Any, items: list[list[Row]]) -> Tensor:
    """The loss of the items' trees in one row; its gradient is left."""
    batch = ForestCollator()([merge(rows) for rows in items])
    del batch["item_ids"]
    if isinstance(model, LlamaForCausalLM):  # as the trainer tells it that there is no mask
        batch["attention_mask"] = torch.ones(1, 1, 1, 1)
    loss: Tensor = model(**batch).loss
    loss.backward()
    return loss.detach()


def gradients(model: Any) -> dict[str, Tensor]:
    """The gradients that are left, taken away."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def check(model: Any, tokenizer: YuanTokenizer, samples: list[Sample]) -> None:
    other = isinstance(model, LlamaForCausalLM)
    renderer = (JinjaChatRenderer if other else YuanChatRenderer)(tokenizer)
    items = [rows_of(sample, tokenizer, renderer) for sample in samples]
    alone = one_by_one(model, [row for rows in items for row in rows])
    wanted = gradients(model)
    assert lay_out_flat(model)
    together = in_one_row(model, items)
    found = gradients(model)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    assert wanted
    assert found.keys() == wanted.keys()
    size = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * size, name


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    return MODELS[request.param](tiny_model)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> YuanTokenizer:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = OTHER_TEMPLATE
    return tokenizer


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(samples=st.lists(conversations(), min_size=1, max_size=4))
def test_any_conversations(model: Any, tokenizer: YuanTokenizer, samples: list[Sample]) -> None:
    check(model, tokenizer, samples)


def test_long_ones(model: Any, tokenizer: YuanTokenizer) -> None:
    words = ["Who are you?", "I am Yuan, a small model.", "再见", "再见! 😀", "So?", "Yes. " * 9]
    check(model, tokenizer, [talk(*words * 2, system="Be brief."), talk(*words), talk("a", "b")])
