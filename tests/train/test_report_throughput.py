"""Rates of a run, the operations that count as useful, and the peaks they are taken against."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.train.report.flops import useful_flops
from fastchat.train.report.peaks import peak_tflops
from fastchat.train.report.throughput import Throughput, Totals, rates
from fastchat.train.report.watching import peak_flops

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_are_those_since_the_last_call() -> None:
    clock = Clock()
    meter = Throughput(peak_flops=4e12, clock=clock)
    meter.add(100, 60, 2, 3e12)
    meter.add(300, 180, 6, 5e12, padding=100)
    clock.now += 4
    assert meter.rates() == pytest.approx(
        {
            "tokens_per_second": 100,
            "trained_tokens_per_second": 60,
            "items_per_second": 2,
            "trained_share": 0.6,
            "padding_share": 0.2,
            "tflops_per_second": 2,
            "mfu": 0.5,
        }
    )
    clock.now += 1
    assert meter.rates() == {}
    meter.add(10, 10, 1)
    clock.now += 1
    assert meter.rates() == {
        "tokens_per_second": 10,
        "trained_tokens_per_second": 10,
        "items_per_second": 1,
        "trained_share": 1,
    }


def test_time_that_is_no_training_does_not_count() -> None:
    clock = Clock()
    meter = Throughput(clock=clock)
    clock.now += 50  # loading, before training starts
    meter.start()
    meter.add(10, 5, 1)
    clock.now += 1
    with meter.paused():
        clock.now += 99
    clock.now += 1
    assert meter.rates()["tokens_per_second"] == 5


def test_processes_add_up_to_what_one_would_have_counted() -> None:
    clock = Clock()
    meters = [Throughput(peak_flops=1e12, clock=clock) for _ in range(3)]
    alone = Throughput(peak_flops=1e12, clock=clock)
    for index, meter in enumerate(meters):
        meter.add(10 + index, 5, 1, 1e12, padding=index)
        alone.add(10 + index, 5, 1, 1e12, padding=index)
    others = [[11.0, 5, 1, 12, 1e12], [12.0, 5, 1, 14, 1e12]]
    clock.now += 2
    together = meters[0].rates(
        lambda own: [sum(column) for column in zip(own, *others, strict=True)]
    )
    assert together == alone.rates()


@given(*[st.floats(0, 1e15)] * 5, st.floats(-1, 1e9))
def test_no_rate_is_negative_or_breaks(
    tokens: float, trained: float, items: float, padding: float, flops: float, seconds: float
) -> None:
    totals = Totals(tokens, trained, items, tokens + padding, flops)
    found = rates(totals, seconds, 1e12)
    assert all(value >= 0 for value in found.values())
    assert 0 <= found.get("padding_share", 0) <= 1


def pass_through(model: PreTrainedModel, tokens: int, kept: int) -> int:
    """The operations that torch counts in one pass, forward and backward."""
    ids = torch.arange(tokens)[None] % 90
    with FlopCounterMode(display=False) as counter:
        places = torch.arange(tokens - kept, tokens)
        model(input_ids=ids, logits_to_keep=places, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


MODELS = [
    YuanForCausalLM(YuanConfig(**SIZES, attn_implementation="eager")),
    YuanForCausalLM(YuanConfig(**SIZES, attn_implementation="eager", tie_word_embeddings=False)),
    LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")),
    LlamaForCausalLM(
        LlamaConfig(**SIZES, attn_implementation="eager", num_key_value_heads=2, head_dim=16)
    ),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("tokens", "kept"), [(7, 3), (40, 40)])
def test_useful_operations_are_those_that_torch_counts(
    model: PreTrainedModel, tokens: int, kept: int
) -> None:
    counted = pass_through(model, tokens, kept)
    # This attention looks at every pair, masked or not.
    assert counted == useful_flops(model.config.to_dict(), tokens, kept, tokens**2)


def test_a_frozen_weight_needs_no_gradient_of_its_own() -> None:
    peft = pytest.importorskip("peft")
    base = YuanForCausalLM(YuanConfig(**SIZES, attn_implementation="eager"))
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=projections))
    model.enable_input_require_grads()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    counted = pass_through(model, 40, 10)
    expected = useful_flops(base.config.to_dict(), 40, 10, 1600, adapter_weights=trained)
    assert counted == expected


def test_unknown_networks_have_no_operations() -> None:
    assert useful_flops({"model_type": "mamba", "hidden_size": 8}, 10, 10, 55) == 0


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A800-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H800", 989.4),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H20", 148),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L20", 119.5),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Tesla V100-SXM2-32GB", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_peaks_by_the_names_that_torch_gives(name: str, bf16: float | None) -> None:
    assert peak_tflops(name, "bf16") == bf16


def test_peaks_by_precision() -> None:
    found = [
        peak_tflops("Tesla V100S-PCIE-32GB", precision)
        for precision in ("bf16", "fp16", "tf32", "fp32")
    ]
    assert found == [None, 130, None, 16.4]


def arguments(**given: object) -> SimpleNamespace:
    values = {"bf16": False, "fp16": False, "tf32": None, "peak_tflops": None, "world_size": 2}
    return SimpleNamespace(**(values | given))


def test_the_peak_of_a_run_is_that_of_all_its_devices() -> None:
    a100 = "NVIDIA A100-SXM4-80GB"
    assert peak_flops(arguments(bf16=True), a100) == 2 * 312e12
    assert peak_flops(arguments(fp16=True), a100) == 2 * 312e12
    assert peak_flops(arguments(tf32=True), a100) == 2 * 156e12
    assert peak_flops(arguments(), a100) == 2 * 19.5e12
    assert peak_flops(arguments(peak_tflops=0.5), None) == 1e12
    assert peak_flops(arguments(), None) is None
    assert peak_flops(arguments(), "a GPU that nobody knows") is None
