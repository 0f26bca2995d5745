"""What this machine can do at most, and what a model then could at most: limits to compare with."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fastchat.model import YuanConfig

GEOMETRIES = {  # hidden size, layers, heads
    "T": (256, 4, 4),
    "B": (512, 8, 8),
    "2B": (2048, 24, 32),
}


def config_of(geometry: str) -> YuanConfig:
    """F = 4 H, vocabulary 135040, tied output matrix."""
    hidden, layers, heads = GEOMETRIES[geometry]
    return YuanConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates of this machine.

    Attributes:
        bandwidth: bytes a second read from memory.
        peak: operations a second of torch's best matrix product, of float32 or bfloat16.
    """

    bandwidth: float
    peak: float


def measure() -> Machine:
    """Measures both, each as the best of many tries: what else runs here must not lower it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    types = (torch.float32, torch.bfloat16)
    # Without units for it a product in bfloat16 takes a hundred times as long: not worth a wait.
    dtype = max(types, key=lambda each: _product_rate(each, 256))
    return Machine(bandwidth(), _product_rate(dtype, 2048))


def bandwidth() -> float:
    """Bytes a second read from memory, as the best of many tries."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    large = torch.ones(1 << 27)  # 512 MiB: more than any cache holds
    return large.nbytes / _best(large.sum)


def _product_rate(dtype: torch.dtype, size: int) -> float:
    """Operations a second."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: left @ right, tries=10)


def _best(work: Callable[[], object], tries: int = 20) -> float:
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def weights_a_token(config: YuanConfig) -> tuple[int, int]:
    """Weights that a token meets in the layers, and in the output matrix."""
    hidden, wide = config.hidden_size, config.intermediate_size
    layer = 6 * hidden**2 + 3 * hidden * wide  # q, k, v, o; the filter's two; the MLP's three
    return config.num_hidden_layers * layer, config.vocab_size * hidden


def kv_bytes(config: YuanConfig, itemsize: int = 2) -> int:
    """Bytes of keys and values that a token of context has."""
    return 2 * config.num_hidden_layers * config.hidden_size * itemsize


def least_seconds(
    config: YuanConfig,
    machine: Machine,
    *,
    streams: int,
    prompt: int,
    new: int,
    weight_bytes: float,
) -> dict[str, float]:
    """The least time in which all streams can be done, and that of a decode step.

    prefill operations / peak + steps x (max(product operations / peak, weight bytes /
    bandwidth) + bytes of keys and values / bandwidth)
    """
    layers, head = weights_a_token(config)
    pairs = prompt * (prompt + 1) / 2 * 4 * config.hidden_size * config.num_hidden_layers
    prefill = streams * (2 * (prompt * layers + head) + pairs) / machine.peak
    products = 2 * streams * (layers + head)
    context = streams * (prompt + new / 2) * kv_bytes(config)
    step = max(products / machine.peak, weight_bytes / machine.bandwidth)
    step += context / machine.bandwidth
    return {"total": prefill + (new - 1) * step, "step": step}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
