"""The serving network against the published implementation's recorded outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.batching.blocks import BlockPool
from fastchat.engine.batching.scheduler import Limits, Scheduler
from fastchat.engine.batching.sequence import Sequence
from fastchat.engine.batching.step import lay_out
from fastchat.engine.native.kernels import Kernels
from fastchat.engine.network.bnb_ops import BitsAndBytesOps
from fastchat.engine.network.decode_graphs import DecodeGraphs
from fastchat.engine.network.native_ops import NativeOps
from fastchat.engine.network.torch_ops import TorchOps
from fastchat.engine.network.yuan import Network, Ops
from fastchat.engine.settings import Quantization
from fastchat.model import YuanConfig
from fastchat.model.weight_files import WeightFiles

BLOCKS, BLOCK_SIZE = 32, 16
OPS: dict[str, Callable[[], Ops]] = {
    "torch": lambda: TorchOps(torch.device("cpu"), torch.float32),
    "native": lambda: NativeOps(Kernels(1), "float32", torch.float32),
}


@pytest.fixture(scope="module", params=["tiny-a", "tiny-b"])
def folder(request: pytest.FixtureRequest, golden_dir: Path) -> Path:
    found: Path = golden_dir / "yuan2" / request.param
    return found


@pytest.fixture(scope="module", params=OPS)
def network(request: pytest.FixtureRequest, folder: Path) -> Network:
    return network_of(folder, request.param)


def network_of(folder: Path, ops: str) -> Network:
    config = YuanConfig.from_pretrained(folder)
    with WeightFiles(folder) as weights:
        return Network(
            config,
            weights.read,
            OPS[ops](),
            blocks=BLOCKS,
            block_size=BLOCK_SIZE,
            scratch=0,
        )


def logits_of(network: Network, rows: list[list[int]], step_tokens: int) -> list[torch.Tensor]:
    """(S, V) for each row, all rows computed side by side in steps of so many tokens."""
    scheduler = Scheduler(BlockPool(BLOCKS, BLOCK_SIZE), Limits(step_tokens=step_tokens))
    asked = SamplingParams(prompt_logprobs=0)
    sequences = [
        Sequence(GenerationRequest(row, asked), n, list(row)) for n, row in enumerate(rows)
    ]
    found: dict[int, list[torch.Tensor]] = {sequence.order: [] for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence)
    while works := scheduler.plan():
        layout = lay_out(works, BLOCK_SIZE, BLOCKS)
        logits = network.logits(network.forward(layout.step, layout.step.logit_rows))
        for work, part in zip(works, layout.logits, strict=True):
            found[work.sequence.order].append(logits[part].clone())
            scheduler.computed(work, 0)
            if not work.sequence.pending:
                scheduler.remove(work.sequence)
    return [torch.cat(parts) for parts in found.values()]


@pytest.mark.parametrize("step_tokens", [1, 2, 3, 7, 512])
@torch.no_grad()
def test_logits_in_chunks_of_any_size(folder: Path, network: Network, step_tokens: int) -> None:
    expected = load_file(folder / "full.safetensors")
    found = logits_of(network, expected["input_ids"].tolist(), step_tokens)
    torch.testing.assert_close(torch.stack(found), expected["logits"], atol=5e-4, rtol=0)


@torch.no_grad()
def test_greedy_continuations(folder: Path, network: Network) -> None:
    for case in json.loads((folder / "greedy.json").read_text()):
        ids = list(case["prompt_ids"])
        for expected in case["continuation_ids"]:
            assert int(logits_of(network, [ids], 512)[0][-1].argmax()) == expected
            ids.append(expected)


@torch.no_grad()
def test_a_step_in_one_call_is_the_step_layer_by_layer(folder: Path, network: Network) -> None:
    rows = load_file(folder / "full.safetensors")["input_ids"].tolist()
    found = logits_of(network, rows, 7)
    network._fused = None
    for one, other in zip(found, logits_of(network, rows, 7), strict=True):
        assert torch.equal(one, other)


def decoded_logits(network: Network, rows: list[list[int]]) -> list[torch.Tensor]:
    """(S, V) for each row, token by token, all rows in the same steps."""
    scheduler = Scheduler(BlockPool(BLOCKS, BLOCK_SIZE), Limits())
    sequences = [Sequence(GenerationRequest(row), n, row[:1]) for n, row in enumerate(rows)]
    found: dict[int, list[torch.Tensor]] = {sequence.order: [] for sequence in sequences}
    for sequence in sequences:
        scheduler.add(sequence)
    while works := scheduler.plan():
        layout = lay_out(works, BLOCK_SIZE, BLOCKS)
        logits = network.logits(network.forward(layout.step, layout.step.logit_rows))
        for work, part in zip(works, layout.logits, strict=True):
            sequence = work.sequence
            found[sequence.order].append(logits[part].clone())
            scheduler.computed(work, 0)
            if sequence.computed == len(rows[sequence.order]):
                scheduler.remove(sequence)
            else:
                sequence.tokens.append(rows[sequence.order][sequence.computed])
    return [torch.cat(parts) for parts in found.values()]


@torch.no_grad()
def test_recorded_decode_steps(folder: Path) -> None:
    """Padding to fixed shapes changes nothing; only that a graph is replayed is left to a GPU."""
    network = network_of(folder, "torch")
    whole = load_file(folder / "full.safetensors")["input_ids"].tolist()
    rows = [row[: 3 + 9 * number] for number, row in enumerate([*whole, *whole])]
    expected = decoded_logits(network, rows)
    recorded: list[Callable[[], None]] = []

    def record(run: Callable[[], None]) -> Callable[[], object]:
        recorded.append(run)
        return run

    network._fused = DecodeGraphs(
        network.one_by_one,
        spare_block=network.spare_block,
        spare_place=network.spare_place,
        block_size=BLOCK_SIZE,
        record=record,
    )
    for one, other in zip(decoded_logits(network, rows), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert 2 < len(recorded) < 8


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "apart"), [("int8", 0.1), ("int4", 0.5)])
@torch.no_grad()
def test_fewer_bits_by_bitsandbytes(folder: Path, quantization: Quantization, apart: float) -> None:
    """As on a GPU, but for the device: close to the whole weights, and not the same."""
    rows = load_file(folder / "full.safetensors")["input_ids"].tolist()
    config = YuanConfig.from_pretrained(folder)
    ops = BitsAndBytesOps(torch.device("cpu"), torch.bfloat16, quantization)
    with WeightFiles(folder) as weights:
        few = Network(config, weights.read, ops, blocks=BLOCKS, block_size=BLOCK_SIZE, scratch=0)
    whole = torch.cat(logits_of(network_of(folder, "torch"), rows, 512))
    found = torch.cat(logits_of(few, rows, 512))
    error = float((found - whole).norm() / whole.norm())
    assert 1e-4 < error < apart
