"""One layer of the 51B and 102B models at its real width, against sums written out in float64.

Their matrices have 1.2 billion numbers. Each is a window that moves over a short row of random
ones by one number a row, so that it takes no memory of its own and no two rows are alike.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, einsum
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fastchat.demo.random_checkpoint import published_config
from fastchat.engine.base import GenerationRequest
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.scheduler import Limits, Scheduler
from fastchat.engine.batching.sequence import Sequence
from fastchat.engine.batching.step import lay_out
from fastchat.engine.native.kernels import Kernels
from fastchat.engine.network.native_ops import NativeOps
from fastchat.engine.network.yuan import Network
from fastchat.model import YuanConfig, YuanForCausalLM
from fastchat.model.modeling_yuan import YuanDecoderLayer
from fastchat.model.published_weights import layer_shapes
from fastchat.train.memory.shape import PUBLISHED

TOKENS = 5
VOCABULARY = 64


@pytest.fixture(scope="module")
def config() -> YuanConfig:
    """Of one layer; 51B and 102B differ in their number only."""
    found = published_config("102b")
    one, other = found.to_dict(), published_config("51b").to_dict()
    assert {name for name in one if one[name] != other[name]} == {"num_hidden_layers"}
    found.num_hidden_layers, found.vocab_size = 1, VOCABULARY
    return found


def window(shape: tuple[int, ...], seed: int) -> Tensor:
    """(out, in, ...) bfloat16 over a row of random numbers."""
    rows, columns = shape[0], int(torch.tensor(shape[1:]).prod())
    generator = torch.Generator().manual_seed(seed)
    row = (torch.randn(rows + columns, generator=generator) * 0.02).bfloat16()
    inner = torch.empty(shape[1:], device="meta").stride()
    return row.as_strided(shape, (1, *inner))


@pytest.fixture(scope="module")
def weights(config: YuanConfig) -> dict[str, Tensor]:
    made = {
        name: window(shape, n)
        for n, (name, shape) in enumerate(layer_shapes(config))
        if len(shape) > 1
    }
    generator = torch.Generator().manual_seed(99)
    for name, shape in layer_shapes(config):
        if len(shape) == 1:
            small = torch.randn(shape, generator=generator) * 0.1
            made[name] = (small + ("norm" in name)).bfloat16()
    return made


@pytest.fixture(scope="module")
def states(config: YuanConfig) -> Tensor:
    """(S, H) float32, bfloat16's numbers."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(TOKENS, config.hidden_size, generator=generator).bfloat16().float()


def product(weight: Tensor, states: Tensor) -> Tensor:
    """(S, in) -> (S, out) in float64, some outputs at a time."""
    parts = weight.flatten(1).split(1024) if weight.dim() == 2 else weight.split(512)
    return torch.cat([einsum("oi,si->so", part.double(), states) for part in parts], dim=1)


def normed(states: Tensor, weight: Tensor) -> Tensor:
    mean = einsum("sh,sh->s", states, states) / states.shape[1]
    return states / (mean + 1e-6).sqrt()[:, None] * weight.double()


def pairs_with(weight: Tensor, bias: Tensor, states: Tensor) -> Tensor:
    """A stage of the filter: the token before, and the token; before the first is zero."""
    before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
    return product(weight[:, :, 0, 0], before) + product(weight[:, :, 1, 0], states) + bias.double()


def rotated(heads: Tensor) -> Tensor:
    """(S, N, D): pairs of the two halves turned by position / 10000^(2i / D)."""
    count, _, width = heads.shape
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (
        torch.arange(0, width, 2, dtype=torch.float64) / width
    )
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    low, high = heads.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


@pytest.fixture(scope="module")
def expected(config: YuanConfig, weights: dict[str, Tensor], states: Tensor) -> Tensor:
    """(S, H) float64: the layer as the paper and the published files have it."""
    size, heads = config.hidden_size, config.num_attention_heads
    attention = {name.removeprefix("self_attn."): weight for name, weight in weights.items()}
    given = states.double()
    h = normed(given, weights["input_layernorm.weight"])
    y = pairs_with(attention["lf_gate.conv1.weight"], attention["lf_gate.conv1.bias"], h)
    z = pairs_with(attention["lf_gate.conv2.weight"], attention["lf_gate.conv2.bias"], y)
    f = normed(z + h, attention["lf_gate.output_layernorm.weight"])
    mixed = torch.cat([product(attention[f"{name}_proj.weight"], f) for name in "qk"], dim=1).view(
        TOKENS, 2 * heads, size // heads
    )
    query, key = rotated(mixed[:, 0::2]), rotated(mixed[:, 1::2])
    value = product(attention["v_proj.weight"], h).view(TOKENS, heads, size // heads)
    scores = einsum("qnd,knd->nqk", query, key) / (size // heads) ** 0.5
    later = torch.ones(TOKENS, TOKENS).triu(1).bool()
    shares = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    attended = einsum("nqk,knd->qnd", shares, value).flatten(1)
    given = given + product(attention["o_proj.weight"], attended)
    h = normed(given, weights["post_attention_layernorm.weight"])
    up, gate = (product(weights[f"mlp.{name}_proj.weight"], h) for name in ("up", "gate"))
    return given + product(weights["mlp.down_proj.weight"], up * up.sigmoid() * gate)


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.slow
@torch.no_grad()
def test_a_layer_of_the_network(
    config: YuanConfig, weights: dict[str, Tensor], states: Tensor, expected: Tensor
) -> None:
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        layer = YuanDecoderLayer(config, 0)
    layer.load_state_dict(
        {name: weight.float() if weight.dim() == 1 else weight for name, weight in weights.items()},
        assign=True,
    )
    for module in layer.modules():  # one matrix at a time in float32
        if "weight" in module._parameters and module.weight.dim() > 1:
            module.register_forward_pre_hook(_widen)
            module.register_forward_hook(_narrow)
    angles = LlamaRotaryEmbedding(config=config)(states, torch.arange(TOKENS)[None])
    found = layer(states[None], position_embeddings=angles)[0]
    assert close(found, expected)


def _widen(module: torch.nn.Module, _: object) -> None:
    module.narrow = module.weight
    module.weight = torch.nn.Parameter(module.weight.float(), requires_grad=False)


def _narrow(module: torch.nn.Module, _: object, __: object) -> None:
    module.weight = module.narrow


@pytest.mark.slow
@torch.no_grad()
def test_a_layer_of_the_engine(
    config: YuanConfig, weights: dict[str, Tensor], states: Tensor, expected: Tensor
) -> None:
    every = {f"model.layers.0.{name}": weight for name, weight in weights.items()}
    every |= {"model.norm.weight": torch.ones(config.hidden_size)}
    table = torch.zeros(VOCABULARY, config.hidden_size)
    table[:TOKENS] = states
    every |= dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), table)
    ops = NativeOps(Kernels(2), "bfloat16", torch.float32)
    network = Network(config, every.__getitem__, ops, blocks=2, block_size=16, scratch=0)
    scheduler = Scheduler(BlockPool(2, 16), Limits())
    scheduler.add(Sequence(GenerationRequest(list(range(TOKENS))), 0, list(range(TOKENS))))
    step = lay_out(scheduler.plan(), 16, 2).step
    found = network.forward(step)
    assert close(found, normed(expected, every["model.norm.weight"]))


@pytest.mark.parametrize(("model", "billions"), [("2b", 2.1), ("51b", 51.8), ("102b", 102.6)])
def test_parameters_of_the_whole(model: str, billions: float) -> None:
    with torch.device("meta"):
        network = YuanForCausalLM(published_config(model))
    count = sum(weight.numel() for weight in network.parameters())
    assert count == PUBLISHED[model].parameters
    assert round(count / 1e9, 1) == billions
