"""Invariants of the network: cached == whole, padded == alone, packed == separate."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.model import YuanForCausalLM

MakeModel = Callable[..., YuanForCausalLM]
VOCABULARY = 61
ids_of = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(ids=ids_of, data=st.data())
@torch.no_grad()
def test_any_chunking_equals_the_whole(
    random_model: MakeModel, ids: list[int], data: st.DataObject
) -> None:
    model, whole = random_model(), torch.tensor([ids])
    cache, logits, start = None, [], 0
    while start < len(ids):
        size = data.draw(st.integers(1, len(ids) - start))
        output = model(whole[:, start : start + size], past_key_values=cache, use_cache=True)
        cache, start = output.past_key_values, start + size
        logits.append(output.logits)
    close(torch.cat(logits, dim=1), model(whole, use_cache=False).logits)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ids_of, min_size=1, max_size=4), data=st.data())
@torch.no_grad()
def test_padding_anywhere_changes_nothing(
    random_model: MakeModel, rows: list[list[int]], data: st.DataObject
) -> None:
    """Even between tokens: each token follows the real token before it."""
    model, size = random_model(), max(map(len, rows)) + 3
    batch = torch.full((len(rows), size), VOCABULARY - 1)
    mask = torch.zeros_like(batch)
    for index, row in enumerate(rows):
        order = data.draw(st.permutations(range(size)))
        places = sorted(order[: len(row)])
        batch[index, places], mask[index, places] = torch.tensor(row), 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(batch, attention_mask=mask, position_ids=positions).logits
    for index, row in enumerate(rows):
        close(logits[index][mask[index].bool()], model(torch.tensor([row])).logits[0])


@settings(max_examples=25, deadline=None)
@given(documents=st.lists(ids_of, min_size=1, max_size=4))
def test_packed_equals_separate(random_model: MakeModel, documents: list[list[int]]) -> None:
    model = random_model()
    row = torch.tensor([list(chain.from_iterable(documents))])
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    with torch.no_grad():
        packed = model(row, position_ids=positions).logits[0]
        alone = [model(torch.tensor([document])).logits[0] for document in documents]
    close(packed, torch.cat(alone))


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_gradients_of_packed_rows_equal_separate_ones(random_model: MakeModel, heads: int) -> None:
    documents = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8]]
    model = random_model(num_attention_heads=heads)
    row = torch.tensor([list(chain.from_iterable(documents))])
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None]
    labels = torch.tensor([list(chain.from_iterable([-100, *d[1:]] for d in documents))])
    packed = gradients(model, lambda: model(row, position_ids=positions, labels=labels).loss)
    count = sum(len(document) - 1 for document in documents)
    separate = gradients(
        model,
        lambda: sum(
            model(torch.tensor([d]), labels=torch.tensor([d])).loss * (len(d) - 1) / count
            for d in documents
        ),
    )
    for name in packed:
        torch.testing.assert_close(packed[name], separate[name], atol=1e-6, rtol=1e-4)


def gradients(model: YuanForCausalLM, loss: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}]
)
def test_padded_generation_equals_alone(
    random_model: MakeModel, side: str, options: dict[str, int]
) -> None:
    model = random_model()
    rows = [torch.tensor([3, 1, 4]), torch.tensor([1, 5, 9, 2, 6, 5]), torch.tensor([35])]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side=side)
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(row) for row in rows], batch_first=True, padding_side=side
    )
    options = {"max_new_tokens": 8, "do_sample": False, **options}
    together = model.generate(batch, attention_mask=mask, **options)
    copies = options.get("num_return_sequences", 1)
    assert torch.equal(together[::copies, : batch.shape[1]], batch)
    for index, row in enumerate(rows):
        alone = model.generate(row[None], attention_mask=torch.ones_like(row)[None], **options)
        for copy in range(copies):
            written = alone[copy, len(row) :].tolist()
            found = together[index * copies + copy, batch.shape[1] :].tolist()
            assert found[: len(written)] == written


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 3},
        {"prefill_chunk_size": 2},
    ],
)
def test_ways_to_generate_agree(random_model: MakeModel, options: dict[str, int]) -> None:
    model = random_model()
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 3, 1, 4, 1]])
    plain = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False}
    expected = model.generate(ids, **plain)
    assert torch.equal(model.generate(ids, **plain, **options), expected)


def test_every_embedding_row_trains(random_model: MakeModel) -> None:
    model = random_model(tie_word_embeddings=False)
    end = model.config.pad_token_id
    model(torch.tensor([[3, end, 4]]), labels=torch.tensor([[3, end, 4]])).loss.backward()
    assert model.model.embed_tokens.weight.grad[end].abs().sum() > 0


def test_sampling_runs(random_model: MakeModel) -> None:
    model, ids = random_model(), torch.tensor([[3, 1, 4]])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=5,
        num_return_sequences=3,
        min_new_tokens=4,
        max_new_tokens=4,
    )
    assert output.shape == (3, 7)


def test_one_input_is_needed(random_model: MakeModel) -> None:
    model = random_model()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model.model()
