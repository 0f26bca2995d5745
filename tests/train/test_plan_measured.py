"""What the planner counts, against real tensors of small networks."""

from __future__ import annotations

import contextlib
from itertools import accumulate

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile

from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.forest import Forest
from fastchat.train.arguments import ALL_PROJECTIONS
from fastchat.train.memory import activations as act
from fastchat.train.memory.parts import memory_parts
from fastchat.train.memory.setup import PlanSpec, Setup
from fastchat.train.memory.shape import ModelShape

TOKENS = 96


def shape_of(layers: int = 2, *, hidden: int = 64, heads: int = 4, tied: bool = True) -> ModelShape:
    return ModelShape("small", hidden, 4 * hidden, layers, heads, vocabulary=71, tied=tied)


def network(shape: ModelShape) -> YuanForCausalLM:
    torch.manual_seed(0)
    config = YuanConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        tie_word_embeddings=shape.tied,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=1,
    )
    return YuanForCausalLM(config).train()


def adapted(model: YuanForCausalLM, modules=ALL_PROJECTIONS, rank=4):
    model.enable_input_require_grads()
    adapter = LoraConfig(r=rank, target_modules=list(modules), task_type="CAUSAL_LM")
    return get_peft_model(model, adapter)


def saved_bytes(model: torch.nn.Module, *, autocast: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    network = getattr(model, "base_model", model)
    network = getattr(network, "model", network)  # peft's wrapper, or the head's network
    network = network.model if isinstance(network, YuanForCausalLM) else network
    cast = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        network(input_ids=torch.arange(TOKENS)[None] % 71, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def a_layer(build, *, autocast: bool) -> float:
    """What one more layer adds to the saved bytes."""
    one, three = (saved_bytes(build(shape_of(layers)), autocast=autocast) for layers in (1, 3))
    return (three - one) / 2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("layers", "hidden", "heads"), [(1, 32, 1), (3, 24, 3)])
def test_parameters_are_the_networks(layers, hidden, heads, tied):
    shape = shape_of(layers, hidden=hidden, heads=heads, tied=tied)
    assert shape.parameters == sum(weight.numel() for weight in network(shape).parameters())


@pytest.mark.parametrize("modules", [ALL_PROJECTIONS, ("q_proj", "v_proj"), ("conv1", "conv2")])
def test_an_adapters_parameters_are_pefts(modules):
    shape = shape_of()
    trained, _ = adapted(network(shape), modules, rank=5).get_nb_trainable_parameters()
    assert shape.adapter(5, modules) == trained


@pytest.mark.parametrize(
    ("dtype", "autocast", "precision"),
    [
        (torch.float32, False, act.FP32),
        (torch.bfloat16, False, act.BF16),
        (torch.float32, True, act.AUTOCAST),
    ],
)
def test_activations_of_a_trained_layer(dtype, autocast, precision):
    shape = shape_of(1)
    measured = a_layer(lambda shape: network(shape).to(dtype), autocast=autocast)
    planned = act.saved_by_layer(shape, precision) * TOKENS + act.saved_weights(shape, precision)
    if autocast:  # counted as weights by the planner
        planned += precision.matmul * shape.linears
    assert measured == pytest.approx(planned, rel=0.05)


@pytest.mark.parametrize("modules", [ALL_PROJECTIONS, ("q_proj", "k_proj")])
@pytest.mark.parametrize(
    ("dtype", "autocast", "precision"),
    [(torch.bfloat16, True, act.BF16), (torch.float32, False, act.FP32)],
)
def test_activations_of_an_adapted_layer(dtype, autocast, precision, modules):
    shape = shape_of(1)
    measured = a_layer(lambda shape: adapted(network(shape).to(dtype), modules), autocast=autocast)
    planned = act.saved_by_adapted_layer(shape, precision, modules, 4, dropout=False) * TOKENS
    adapter = modules if autocast else ()  # no copy of weights that are in the right format
    planned += act.saved_weights(shape, precision, adapter, 4)
    assert measured == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, act.FP32), (torch.bfloat16, act.BF16)]
)
def test_a_checkpointed_layer_keeps_its_input(dtype, precision, lora):
    def build(shape):
        model = network(shape).to(dtype)
        model.activation_checkpointing_enable({"use_reentrant": False})
        return adapted(model) if lora else model

    measured = a_layer(build, autocast=lora and dtype == torch.bfloat16)
    assert measured == act.boundary(shape_of(1), precision) * TOKENS


def parts_of(setup: Setup) -> dict[str, float]:
    return {part.name: part.size for part in memory_parts(setup)}


def test_states_of_a_step_in_fp32():
    shape = shape_of()
    model = network(shape)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.arange(5)[None], labels=torch.arange(5)[None]).loss.backward()
    optimizer.step()
    gradients = sum(weight.grad.nbytes for weight in model.parameters())
    states = sum(
        value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim
    )
    spec = PlanSpec(shape=shape, gpus=1, memory=1)
    setup = Setup(spec=spec, zero=0, offload="none", batch_size=1, gradient_checkpointing=False)
    planned = parts_of(setup)
    assert planned["gradients"] == gradients
    assert planned["optimizer states"] == states
    assert planned["fp32 masters"] == sum(weight.nbytes for weight in model.parameters())


def peak_bytes(run) -> int:
    """The most that a function's allocations come to at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = record.profiler.kineto_results.events()
    changes = [(each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]"]
    return max(accumulate(size for _, size in sorted(changes, key=lambda change: change[0])))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("recompute", [False, True])
def test_peak_of_a_pass(mode, recompute):
    shape, tokens = shape_of(3), 400
    model = network(shape)
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if mode == "lora":
        model = adapted(model.bfloat16())
    row, places = torch.arange(tokens)[None] % 71, torch.arange(tokens - 1)
    inputs = {"input_ids": row, "use_cache": False, "forest": Forest(torch.arange(tokens) - 1)}
    inputs |= {"logits_to_keep": places, "shift_labels": row[0, 1:]}

    def run():
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()

    run()  # gradients are there from now on
    spec = PlanSpec(
        shape=shape, gpus=1, memory=1, mode=mode, max_length=tokens, lora_r=4, lora_dropout=0.0
    )
    planned = parts_of(
        Setup(spec=spec, zero=0, offload="none", batch_size=1, gradient_checkpointing=recompute)
    )
    passing = ["activations", "loss buffers", "output matrix's gradient", "shared"]
    passing += ["weights"] if mode == "full" else []  # autocast's copies
    total = sum(planned.get(name, 0) for name in passing)
    assert peak_bytes(run) == pytest.approx(total, rel=0.15)


def test_constants_of_four_bit_weights():
    functional = pytest.importorskip("bitsandbytes.functional")
    weights = torch.randn(256, 1024)
    packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    measured = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    shape = ModelShape("one", hidden=256, intermediate=1024, layers=1, heads=1, vocabulary=1)
    spec = PlanSpec(shape=shape, gpus=1, memory=1, mode="qlora")
    setup = Setup(spec=spec, zero=0, offload="none", batch_size=1, gradient_checkpointing=True)
    planned = parts_of(setup)
    other = 4 * (shape.parameters - shape.linears)
    per_weight = (planned["weights"] - other + planned["quantisation constants"]) / shape.linears
    assert measured == pytest.approx(per_weight * weights.numel())
