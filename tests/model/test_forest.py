"""Rows that hold forests: every token sees its ancestors, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from fastchat.data.rows import IGNORED, Row
from fastchat.data.tree import merge
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.forest import Forest, forest_attention
from fastchat.model.learned_loss import CHUNK
from fastchat.train.batching import ForestCollator

VOCABULARY = 60


@st.composite
def forests(draw: st.DrawFn) -> list[int]:
    """Parents in pre-order: each node hangs on the path to the node before it, or on none."""
    parents = [-1]
    for node in range(1, draw(st.integers(1, 24))):
        path = [-1, node - 1]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        parents.append(draw(st.sampled_from(path)))
    return parents


def ancestors(parents: list[int], node: int) -> set[int]:
    found = set()
    while node >= 0:
        found.add(node)
        node = parents[node]
    return found


@given(forests())
@settings(deadline=None)
def test_places_are_what_walking_up_the_parents_finds(parents: list[int]) -> None:
    forest = Forest.of(parents)
    seen = [ancestors(parents, node) for node in range(len(parents))]
    assert forest.position_ids[0].tolist() == [len(found) - 1 for found in seen]
    assert forest.attention_pairs == sum(map(len, seen))
    assert forest.chains == (len(parents) - len(set(parents) - {-1}) == parents.count(-1))
    for runs in forest.trees:
        for run in runs:
            assert set(run.ancestors.tolist()) | {run.start} == seen[run.start]
    for node, end in enumerate(forest._layout[1].tolist()):
        assert [other for other, path in enumerate(seen) if node in path] == [*range(node, end)]


def in_pre_order(parents: list[int]) -> bool:
    for node, parent in enumerate(parents):
        if parent not in {-1, *(ancestors(parents, node - 1) if node else ())}:
            return False  # what stands before this node is sound, so that its path has an end
    return True


@given(st.lists(st.integers(-2, 6), min_size=1, max_size=7))
@settings(deadline=None, max_examples=300)
@example([0])
@example([-1, 1])
@example([-1, 0, 0, 1])
@example([-1, -2])
@example([5, 0])
def test_other_orders_are_refused(parents: list[int]) -> None:
    if in_pre_order(parents):
        assert len(Forest.of(parents).parents) == len(parents)
        return
    with pytest.raises(ValueError, match=r"parent|pre-order"):
        Forest.of(parents)


@given(forests(), st.sampled_from([(4, 4), (4, 2), (4, 1)]))
@settings(deadline=None, max_examples=40)
def test_attention_is_masked_attention_forward_and_backward(
    parents: list[int], heads: tuple[int, int]
) -> None:
    size = len(parents)
    random = torch.Generator().manual_seed(size)
    query, key, value = (
        torch.randn(1, n, size, 8, generator=random, requires_grad=True)
        for n in (heads[0], heads[1], heads[1])
    )
    mask = torch.zeros(size, size, dtype=torch.bool)
    for node in range(size):
        mask[node, sorted(ancestors(parents, node))] = True
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    output = Forest.of(parents).attend(query, key, value, scale=0.3)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(expected.shape, generator=random)
    inputs = (query, key, value)
    gradients = torch.autograd.grad((output * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    for found, due in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-5)


def test_a_forest_moves_with_its_batch() -> None:
    forest = Forest.of([-1, 0, 1, 0])
    moved = forest.to("meta", non_blocking=True)
    assert moved.parents.device.type == "meta"
    assert moved.trees is forest.trees
    assert moved.attention_pairs == 1 + 2 + 3 + 2


class Layer(torch.nn.Module):
    """What an attention function reads of the module that it serves."""

    num_key_value_groups = 1
    is_causal = True


def test_rows_without_a_forest_are_attended_to_as_usual() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    chain = Forest.of(range(-1, 4))
    for forest in (None, chain):
        output, _ = forest_attention(Layer(), q, k, v, None, scaling=0.5, forest=forest)
        plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5)
        torch.testing.assert_close(output.transpose(1, 2), plain)


def test_more_than_plain_attention_is_refused() -> None:
    states = torch.zeros(1, 1, 1, 4)
    with pytest.raises(ValueError, match="sliding_window"):
        forest_attention(
            torch.nn.Module(),
            states,
            states,
            states,
            None,
            scaling=1.0,
            forest=Forest.of([-1]),
            sliding_window=4,
        )


def yuan() -> Any:
    torch.manual_seed(0)
    return YuanForCausalLM(
        YuanConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def llama() -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    model.set_attn_implementation("forest")
    return model


def items(seed: int, *, count: int = 3, longest: int = 14) -> list[list[Row]]:
    """Rows that begin alike in part, as those of a conversation do."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        history = random.integers(0, VOCABULARY, longest).tolist()
        rows = []
        for _ in range(int(random.integers(1, 5))):
            start = int(random.integers(1, longest))
            ids = history[:start] + random.integers(0, 2, int(random.integers(2, 7))).tolist()
            prompt = int(random.integers(1, len(ids)))
            rows.append(Row(str(number), ids, [IGNORED] * prompt + ids[prompt:]))
        made.append(rows)
    return made


def separately(model: Any, rows: list[Row]) -> torch.Tensor:
    """The mean loss of rows, each alone and with all its logits."""
    losses = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return sum(losses) / sum(row.learned for row in rows)


def as_forest(model: Any, made: list[list[Row]]) -> torch.Tensor:
    batch = ForestCollator()([merge(rows) for rows in made])
    del batch["item_ids"]
    if not isinstance(model, YuanForCausalLM):
        batch["attention_mask"] = torch.ones(1, 1, 1, 1)
        batch["labels"] = batch["labels"][None]
        batch["shift_labels"] = batch["shift_labels"][None]
    return model(**batch).loss


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [yuan, llama])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_forest_trains_as_its_rows_one_by_one(kind: Any, checkpointing: bool) -> None:
    model = kind().train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    for seed in range(4):
        made = items(seed)
        alone = separately(model, [row for rows in made for row in rows])
        wanted = gradients(model, alone)
        together = as_forest(model, made)
        found = gradients(model, together)
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
        assert found.keys() == wanted.keys()
        scale = max(float(gradient.abs().max()) for gradient in wanted.values())
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_so_does_one_whose_loss_takes_several_chunks() -> None:
    model = yuan().train()
    made = items(9, count=80, longest=20)
    rows = [row for rows in made for row in rows]
    assert sum(row.learned for row in rows) > 2 * CHUNK
    alone = separately(model, rows)
    wanted = gradients(model, alone)
    together = as_forest(model, made)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    found = gradients(model, together)["model.embed_tokens.weight"]
    torch.testing.assert_close(found, wanted["model.embed_tokens.weight"], rtol=1e-4, atol=1e-7)


def test_low_precision_sums_losses_in_float32() -> None:
    model = yuan().train()
    made = items(3, count=200)
    exact = as_forest(model, made)
    low = as_forest(model.to(torch.bfloat16), made)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=5e-3, atol=0)


def test_a_forest_excludes_masks() -> None:
    with pytest.raises(ValueError, match="excludes"):
        yuan()(
            input_ids=torch.tensor([[1, 2]]),
            attention_mask=torch.ones(1, 2),
            forest=Forest.of([-1, 0]),
        )
