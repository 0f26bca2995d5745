"""Minutes of everything at once: arrivals, cancels, failures, wishes of all kinds.

    python playground/benchmark/soak.py [--seconds 600] [--plot FILE]

A tiny Yuan2 with random weights gets requests at random times: short and long, with shared
beginnings, greedy and sampled, with grammars, stop strings and drafts. Some are abandoned
half-way, some name impossible things, and now and then a step fails. At the end every block
has to be free, and memory has to be where it was after the first tenth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import set_seed

import fastchat
from fastchat.engine.base import GenerationRequest, Grammar, SamplingParams
from fastchat.engine.batching.scheduler import Limits
from fastchat.engine.continuous import ContinuousEngine
from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings
from fastchat.errors import FastChatError
from fastchat.model import YuanConfig, YuanForCausalLM, load_tokenizer

FLAT = 1.05
"""How much memory may be over what it was early on."""


@dataclass
class Record:
    """What happened, and what was held, over time."""

    ends: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    cache_usage: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)


def tiny(folder: Path) -> Path:
    """A Yuan2 of a few thousand weights, with the demo's tokenizer."""
    tokenizer = load_tokenizer(Path(fastchat.__file__).parent / "demo" / "checkpoint")
    set_seed(0)
    config = YuanConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
    )
    YuanForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Requests:
    """Requests of all kinds, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._shared = [self._ids(100) for _ in range(4)]

    def _ids(self, size: int) -> list[int]:
        return [self._rng.randrange(10, 1900) for _ in range(size)]

    def one(self) -> GenerationRequest:
        """The next request; one in twenty cannot be answered."""
        rng = self._rng
        prompt = rng.choice([[], *self._shared]) + self._ids(rng.randrange(1, 60))
        values: dict[str, Any] = {
            "temperature": rng.choice([0.0, 0.7, 1.5]),
            "top_p": rng.choice([1.0, 0.9]),
            "max_new_tokens": rng.randrange(1, 120),
            "seed": rng.randrange(100),
            "stop": rng.choice([(), ("a", "the end")]),
            "repetition_penalty": rng.choice([1.0, 1.3]),
            "logprobs": rng.choice([None, 3]),
        }
        if rng.random() < 0.1:
            values["grammar"] = rng.choice(
                [Grammar("json"), Grammar("regex", "[0-9]{1,40}"), Grammar("regex", "(")]
            )
        if rng.random() < 0.03:
            values["max_new_tokens"] = 5000
        return GenerationRequest(
            prompt,
            SamplingParams(**values),
            priority=rng.randrange(3),
            deadline_s=rng.choice([None, None, 0.2]),
        )

    def patience(self) -> int:
        """Tokens after which the one who asked leaves."""
        return self._rng.randrange(1, 60) if self._rng.random() < 0.3 else 10_000

    def pause(self, rate: float) -> float:
        """Seconds until the next arrival."""
        return self._rng.expovariate(rate)


def fail_at_times(engine: ContinuousEngine, rate: float) -> None:
    """Makes a share of all steps fail."""
    network, rng = engine.core.network, random.Random(1)
    forward = network.forward

    def failing(step: Any, rows: Any = None) -> Any:
        if rng.random() < rate:
            raise RuntimeError("a step failed on purpose")
        return forward(step, rows)

    network.forward = failing  # type: ignore[method-assign]


async def soak(engine: ContinuousEngine, seconds: float, rate: float) -> Record:
    """Asks for so long, then waits until all is done."""
    record, requests = Record(), Requests(0)
    start = time.monotonic()

    async def ask(request: GenerationRequest, patience: int) -> None:
        try:
            async with aclosing(engine.generate(request)) as events:
                async for event in events:
                    if event.completion_tokens >= patience:
                        record.ends["left"] += 1
                        return
            record.ends["answered"] += 1
        except FastChatError as error:
            record.ends[type(error).__name__] += 1

    async def watch() -> None:
        while True:
            stats = engine.stats()
            record.seconds.append(time.monotonic() - start)
            record.rss_mb.append(rss_mb())
            record.cache_usage.append(stats.cache_usage)
            record.running.append(stats.running)
            record.waiting.append(stats.waiting)
            await asyncio.sleep(seconds / 300)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as group:
        while time.monotonic() - start < seconds:
            group.create_task(ask(requests.one(), requests.patience()))
            await asyncio.sleep(requests.pause(rate))
    await engine.embed([[5]])  # behind all aborts
    watching.cancel()
    return record


def rss_mb() -> float:
    """Memory that is held now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def plot(record: Record, path: Path) -> None:
    """Memory, blocks and requests over time."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    axes[0].plot(record.seconds, record.rss_mb)
    axes[0].set_ylabel("memory, MiB")
    axes[0].set_ylim(bottom=0)
    axes[1].plot(record.seconds, [100 * usage for usage in record.cache_usage])
    axes[1].set_ylabel("blocks held, %")
    axes[2].plot(record.seconds, record.running, label="running")
    axes[2].plot(record.seconds, record.waiting, label="waiting")
    axes[2].set_ylabel("requests")
    axes[2].set_xlabel("seconds")
    axes[2].legend()
    figure.savefig(path)


def main() -> None:
    """Runs it, and fails if something was left behind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=120.0, help="arrivals a second")
    parser.add_argument("--failures", type=float, default=0.002, help="share of steps that fail")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    settings = EngineSettings(
        cache_tokens=1024, threads=1, limits=Limits(running=24, waiting=50, step_tokens=128)
    )
    with tempfile.TemporaryDirectory() as folder:
        served = load_served_model(str(tiny(Path(folder))), device="cpu", engine=settings)
        engine = served.engine
        assert isinstance(engine, ContinuousEngine)
        fail_at_times(engine, args.failures)

        async def run() -> Record:
            record = await soak(engine, args.seconds, args.rate)
            await engine.close()
            return record

        record = asyncio.run(run())
    stats = engine.stats()
    early = max(record.rss_mb[len(record.rss_mb) // 20 : len(record.rss_mb) // 10])
    found = {
        "ends": dict(record.ends),
        "stats": {name: getattr(stats, name) for name in stats.__slots__},
        "memory, MiB, early and at the end": [early, record.rss_mb[-1]],
    }
    print(json.dumps(found, indent=2))
    if args.plot:
        plot(record, args.plot)
    if stats.running or stats.waiting or stats.cache_usage or record.rss_mb[-1] > FLAT * early:
        raise SystemExit("something was left behind")


if __name__ == "__main__":
    main()
