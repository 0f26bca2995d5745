"""The network against the published implementation's recorded outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import fastchat.model  # noqa: F401  (registers Yuan2)
from fastchat.model import YuanForCausalLM

LOGITS, HIDDEN, LOSS, GRADIENT = 5e-4, 2e-4, 1e-4, 1e-4


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@torch.no_grad()
def test_logits_and_hidden_states(golden: Path, golden_model: YuanForCausalLM) -> None:
    expected = load_file(golden / "full.safetensors")
    output = golden_model(expected["input_ids"], output_hidden_states=True, use_cache=False)
    close(output.logits, expected["logits"], LOGITS)
    for index, hidden in enumerate(output.hidden_states):
        close(hidden, expected[f"hidden.{index}"], HIDDEN)


@pytest.mark.parametrize("prompt", [9, 2, 1])
@torch.no_grad()
def test_cached_decoding(golden: Path, golden_model: YuanForCausalLM, prompt: int) -> None:
    expected = load_file(golden / "decode.safetensors")
    ids = expected["input_ids"]
    output = golden_model(ids[:, :prompt], use_cache=True)
    cache, logits = output.past_key_values, [output.logits[:, -1:]]
    if prompt == 9:
        check_cache(cache, expected, "p9.prefill")
    for place in range(prompt, ids.shape[1]):
        output = golden_model(ids[:, place : place + 1], past_key_values=cache)
        logits.append(output.logits)
    close(torch.cat(logits, dim=1), expected[f"p{prompt}.logits"], LOGITS)
    if prompt == 9:
        check_cache(cache, expected, "p9.final")


def check_cache(cache: object, expected: dict[str, torch.Tensor], stage: str) -> None:
    for name, tensor in expected.items():
        if not name.startswith(f"{stage}.layer"):
            continue
        layer = cache.layers[int(name.split("layer")[1].split(".")[0])]  # type: ignore[attr-defined]
        if name.endswith("key"):
            close(layer.keys, tensor, HIDDEN)
        elif name.endswith("value"):
            close(layer.values, tensor, HIDDEN)
        else:  # the recorded state holds the last two inputs; ours needs the last only
            close(layer.conv_states[0].transpose(1, 2), tensor[:, -1:], HIDDEN)


def test_greedy(golden: Path, golden_model: YuanForCausalLM) -> None:
    for case in json.loads((golden / "greedy.json").read_text()):
        ids = torch.tensor([case["prompt_ids"]])
        count = len(case["continuation_ids"])
        for cached in (True, False):
            output = golden_model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
                use_cache=cached,
            )
            assert output[0, ids.shape[1] :].tolist() == case["continuation_ids"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients(
    golden: Path, golden_model: YuanForCausalLM, checkpointing: bool
) -> None:
    expected = load_file(golden / "train.safetensors")
    golden_model.train()
    if checkpointing:
        golden_model.gradient_checkpointing_enable()
    loss = golden_model(expected["input_ids"], labels=expected["labels"], use_cache=False).loss
    loss.backward()
    close(loss.detach()[None], expected["loss_shifted"], LOSS)
    parameters = dict(golden_model.named_parameters())
    for name, gradient in expected.items():
        if name.startswith("grad/"):
            close(parameters[name.removeprefix("grad/")].grad, gradient, GRADIENT)
        elif name.startswith("grad_rowsum/"):
            rows = parameters[name.removeprefix("grad_rowsum/")].grad.sum(dim=1)
            close(rows, gradient, GRADIENT)
    total = sum(parameter.grad.square().sum() for parameter in golden_model.parameters()).sqrt()
    torch.testing.assert_close(total[None], expected["grad_l2_norm_total"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_ragged_batches(
    golden: Path, golden_model: YuanForCausalLM, side: str, cached: bool
) -> None:
    expected = load_file(golden / "ragged.safetensors")
    rows = [expected[f"row{index}.input_ids"][0] for index in range(3)]
    padded = torch.nn.utils.rnn.pad_sequence(
        rows, batch_first=True, padding_value=7, padding_side=side
    )
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(row) for row in rows], batch_first=True, padding_side=side
    )
    logits = golden_model(padded, attention_mask=mask, use_cache=cached).logits
    for index in range(3):
        close(logits[index][mask[index].bool()], expected[f"row{index}.logits"][0], LOGITS)


@torch.no_grad()
def test_packed_documents(golden: Path, golden_model: YuanForCausalLM) -> None:
    expected = load_file(golden / "packed.safetensors")
    ids = expected["input_ids"]
    positions = torch.cat([torch.arange(int(size)) for size in expected["doc_lengths"]])[None]
    for mask in (None, torch.ones_like(ids)):
        logits = golden_model(ids, position_ids=positions, attention_mask=mask).logits
        close(logits, expected["logits.isolated"], LOGITS)
    close(golden_model(ids).logits, expected["logits.plain_causal"], LOGITS)


def test_saves_the_published_layout(golden: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(golden)
    model.save_pretrained(tmp_path)
    saved, published = (
        load_file(tmp_path / "model.safetensors"),
        load_file(golden / "model.safetensors"),
    )
    assert saved.keys() == {name for name in published if not name.endswith("inv_freq")}
    for name, weight in saved.items():
        assert torch.equal(weight, published[name])
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    tied = again.lm_head.weight is again.model.embed_tokens.weight
    assert tied == model.config.tie_word_embeddings
