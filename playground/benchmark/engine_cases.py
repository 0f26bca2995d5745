"""Single properties of the engine, each against itself without the thing that is measured."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from copying_model import HALF, copying_checkpoint, twice
from engine_large import read_seconds
from engine_machine import Machine, config_of, kv_bytes, least_seconds, spread, weights_a_token
from engine_models import burst, checkpoint, engine, greedy, prompts
from safetensors.torch import save_file

import fastchat
from fastchat.demo.corpus import load_prose
from fastchat.engine.base import GenerationRequest, Grammar, SamplingParams
from fastchat.engine.continuous import ContinuousEngine
from fastchat.engine.native.library import ThreadPool
from fastchat.engine.sampling import BatchSampler, Row, RowState, Sampled
from fastchat.model.published_weights import layer_shapes
from fastchat.model.tokenizer_loading import load_tokenizer

Args = argparse.Namespace


def step_seconds(own: ContinuousEngine, streams: int, context: int, new: int, seed: int) -> float:
    """Median time of a step in which all streams generate."""
    times: list[float] = []
    core, original = own.core, own.core.step

    def timed(now: float) -> Any:
        generating = [s for s in core.scheduler.running if s.pending == 1]
        start = time.perf_counter()
        outcomes = original(now)
        if len(generating) == streams:
            times.append(time.perf_counter() - start)
        return outcomes

    core.step = timed
    burst(own, prompts(streams, context, seed), greedy(new))
    core.step = original
    return statistics.median(times)


def step(args: Args, machine: Machine) -> dict[str, Any]:
    """A decode step of 1, 16 and 64 streams over the limit."""
    config, found = config_of("B"), {}
    weight_bytes = 2 * sum(weights_a_token(config))
    with engine(checkpoint("B"), room=64 * 144, drafting=False) as own:
        for streams in (1, 16, 64):
            times = [
                step_seconds(own, streams, 64, 24, 10 * streams + n) for n in range(args.rounds)
            ]
            least = least_seconds(
                config, machine, streams=streams, prompt=64, new=24, weight_bytes=weight_bytes
            )["step"]
            found[f"{streams} streams"] = {
                "ms": spread([1e3 * seconds for seconds in times]),
                "share of the limit": spread([least / seconds for seconds in times]),
            }
    return found


def prefix(args: Args, _: Machine) -> dict[str, Any]:
    """Time to the first token: 2,000 known tokens and 32 new ones, over 2,032 new ones."""
    hits, misses = [], []
    with engine(checkpoint("B"), room=24_000, drafting=False) as own:
        for number in range(args.rounds + 1):
            (known,) = prompts(1, 2000, number)
            first, second = prompts(2, 32, 5000 + number)
            miss = burst(own, [known + first], greedy(1)).first_s[0]
            hit = burst(own, [known + second], greedy(1)).first_s[0]
            if number:
                misses.append(miss)
                hits.append(hit)
    ratios = [hit / miss for hit, miss in zip(hits, misses, strict=True)]
    return {"hit, s": spread(hits), "miss, s": spread(misses), "hit / miss": spread(ratios)}


class _Nothing:
    """A network and a sampler that take no time: what is left is bookkeeping."""

    def __init__(self, own: ContinuousEngine) -> None:
        self._rng = random.Random(0)
        self._logits = torch.zeros(64, 1)
        self.core = own.core
        self.core.network.forward = lambda _, rows: self._logits[: len(rows)]
        self.core.network.logits = lambda states: states
        self.core.sampler.sample = self._sample

    def _sample(self, _: Any, rows: list[Row]) -> list[Sampled]:
        return [Sampled(self._rng.randrange(3, 77_000)) for _ in rows]


def bookkeeping(args: Args, _: Machine) -> dict[str, Any]:
    """CPU seconds of all that is neither network nor sampling, over those of whole steps."""
    options: dict[str, Any] = {"room": 64 * 144, "drafting": False}
    asked = greedy(64)
    shares, own_cpu, all_cpu = [], [], []
    folder = checkpoint("B")
    with engine(folder, **options) as real, engine(folder, **options) as hollow:
        _Nothing(hollow)
        for number in range(args.rounds):
            rows = prompts(64, 64, 700 + number)
            whole, rest = burst(real, rows, asked), burst(hollow, rows, asked)
            all_cpu.append(whole.cpu_s)
            own_cpu.append(rest.cpu_s)
            shares.append(rest.cpu_s / whole.cpu_s)
    return {
        "whole, CPU s": spread(all_cpu),
        "bookkeeping, CPU s": spread(own_cpu),
        "share": spread(shares),
    }


def context(args: Args, machine: Machine) -> dict[str, Any]:
    """Time that a longer context adds to a step, over the time that reading it takes."""
    config, found = config_of("B"), {}
    short, long = 128, 2048
    with engine(checkpoint("B"), room=16 * (long + 128), drafting=False) as own:
        for streams in (1, 16):
            ratios = []
            for number in range(args.rounds):
                # The first go on generating while the last are still being read.
                new = 12 + streams * long // 400
                near = step_seconds(own, streams, short, new, 31 * number)
                far = step_seconds(own, streams, long, new, 31 * number + 1)
                added = streams * (long - short) * kv_bytes(config)
                ratios.append((far - near) * machine.bandwidth / added)
            found[f"{streams} streams"] = {"added time / reading time": spread(ratios)}
    return found


def grammar(args: Args, _: Machine) -> dict[str, Any]:
    """16 streams whose answers have to be JSON of a schema, against free ones."""
    schema = {"type": "array", "minItems": 1000, "items": {"type": "integer"}}
    asked = replace(greedy(64), temperature=1.0, seed=1)
    formed = replace(asked, grammar=Grammar("json_schema", json.dumps(schema)))
    with engine(checkpoint("B"), room=32 * 144, drafting=False) as own:
        return _compared(own, args, 16, {"free": asked, "schema": formed}, "schema / free")


def settings(args: Args, _: Machine) -> dict[str, Any]:
    """Sampling 64 rows with 64 different settings, against 64 equal ones."""
    vocab_size = config_of("B").vocab_size
    rng = random.Random(0)
    equal = [SamplingParams(temperature=0.7, top_p=0.9, seed=n) for n in range(64)]
    different = [
        SamplingParams(
            temperature=rng.uniform(0.2, 1.5),
            top_p=rng.choice([0.8, 0.9, 0.95, 1.0]),
            top_k=rng.choice([-1, 20, 50, 200]),
            min_p=rng.choice([0.0, 0.05]),
            repetition_penalty=rng.choice([1.0, 1.1]),
            frequency_penalty=rng.choice([0.0, 0.5]),
            seed=n,
        )
        for n in range(64)
    ]
    sampler = BatchSampler(vocab_size, ThreadPool(2))
    logits = torch.randn(64, vocab_size)
    times: dict[str, list[float]] = {"equal": [], "different": [], "greedy": []}
    rows = {
        "equal": equal,
        "different": different,
        "greedy": [SamplingParams(temperature=0.0)] * 64,
    }
    for _ in range(args.rounds + 1):
        for name, params in rows.items():
            states = [Row(RowState(each, prompts(1, 64, 3)[0])) for each in params]
            copy = logits.clone()
            start = time.perf_counter()
            sampler.sample(copy, states)
            times[name].append(time.perf_counter() - start)
    sampler.close()
    taken = {f"{name}, ms": spread([1e3 * t for t in ts[1:]]) for name, ts in times.items()}
    pairs = zip(times["different"][1:], times["equal"][1:], strict=True)
    return {**taken, "different / equal": spread([a / b for a, b in pairs])}


def lookup(args: Args, _: Machine) -> dict[str, Any]:
    """One stream with drafts against the same without: a model that copies, and one that does not.

    What does not repeat is sampled from random weights.
    """
    found: dict[str, Any] = {}
    sampled = replace(greedy(160), temperature=1.0, seed=5)
    texts = {number: prompts(1, 64, 40 + number)[0] for number in range(args.rounds)}
    said_once = {number: twice(1, 10_000 + number)[0, : HALF + 4].tolist() for number in texts}
    cases = {
        "tuned to copy": (copying_checkpoint("B"), greedy(HALF - 4), said_once),
        "not repeating": (checkpoint("B"), sampled, texts),
    }
    for name, (folder, asked, rows) in cases.items():
        with engine(folder, room=4096) as drafted, engine(folder, room=4096, drafting=False) as own:
            ratios = []
            for row in rows.values():
                pair = [burst(one, [row], asked) for one in (drafted, own)]
                if pair[0].ids != pair[1].ids:
                    raise SystemExit("drafts changed the answer")
                ratios.append(pair[0].rate / pair[1].rate)
            stats = drafted.stats()
        found[name] = {
            "with / without drafts": spread(ratios),
            "accepted": stats.accepted_tokens,
            "drafted": stats.drafted_tokens,
        }
    return found


def adapters(args: Args, _: Machine) -> dict[str, Any]:
    """16 streams over 4 adapters of rank 8 on all projections, against the base alone."""
    folder, config = checkpoint("B"), config_of("B")
    names = [f"adapter-{number}" for number in range(4)]
    for name in names:
        target = folder / name
        target.mkdir(exist_ok=True)
        generator = torch.Generator().manual_seed(len(name))
        weights = {}
        for module, shape in layer_shapes(config):
            if "_proj" in module:
                for number in range(config.num_hidden_layers):
                    key = f"base_model.model.model.layers.{number}.{module.removesuffix('.weight')}"
                    weights[f"{key}.lora_A.weight"] = torch.randn(8, shape[1], generator=generator)
                    weights[f"{key}.lora_B.weight"] = 1e-3 * torch.randn(
                        shape[0], 8, generator=generator
                    )
        save_file(weights, target / "adapter_model.safetensors")
        description = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}
        (target / "adapter_config.json").write_text(json.dumps(description))
    ratios = []
    with engine(folder, room=32 * 144, drafting=False) as own:
        for number in range(args.rounds):
            rows = prompts(16, 64, 60 + number)
            for name in own.adapters:
                asyncio.run(own.unload_adapter(name))
            base = burst(own, rows, greedy(64))
            for name in names:
                asyncio.run(own.load_adapter(name, str(folder / name)))
            mixed = burst(own, rows, greedy(64), adapters=names)
            ratios.append(mixed.rate / base.rate)
    return {"4 adapters / base": spread(ratios)}


def _compared(
    own: ContinuousEngine,
    args: Args,
    streams: int,
    kinds: dict[str, SamplingParams],
    name: str,
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(args.rounds + 1):
        for kind, asked in kinds.items():
            done = burst(own, prompts(streams, 64, 9000 + number), asked)
            if number:
                rates[kind].append(done.rate)
    base, other = kinds
    pairs = zip(rates[other], rates[base], strict=True)
    ratio = {name: spread([a / b for a, b in pairs])}
    return {f"{kind}, tokens/s": spread(values) for kind, values in rates.items()} | ratio


def quantised(_: Args, __: Machine) -> dict[str, Any]:
    """Perplexity of the demo's model on the demo's prose, in each kind of weights."""
    folder = Path(fastchat.__file__).parent / "demo" / "checkpoint"
    asked = SamplingParams(temperature=0.0, max_new_tokens=1, prompt_logprobs=0)
    tokenizer = load_tokenizer(folder)
    rows = [tokenizer.encode_ids(text)[:200] for text in load_prose()[:60]]
    found: dict[str, Any] = {}
    for kind in (None, "int8", "int4"):
        with engine(folder, room=4096, quantization=kind, dtype="bfloat16") as own:
            losses = asyncio.run(_losses(own, [row for row in rows if len(row) > 8], asked))
        found[kind or "bfloat16"] = {"perplexity": math.exp(statistics.mean(losses))}
    base = found["bfloat16"]["perplexity"]
    for kind in ("int8", "int4"):
        found[kind]["over bfloat16"] = found[kind]["perplexity"] / base
    return found | {"tokens": len(losses)}


async def _losses(
    own: ContinuousEngine, rows: list[list[int]], asked: SamplingParams
) -> list[float]:
    losses: list[float] = []
    for row in rows:
        async for event in own.generate(GenerationRequest(row, asked)):
            told = (entry.logprob for entry in event.prompt_logprobs)
            losses += [-logprob for logprob in told if logprob is not None]
    return losses


def large(args: Args, machine: Machine) -> dict[str, Any]:
    """The exact 2B geometry, in each kind of weights; `engine_large.py` measures."""
    folder = checkpoint("2B")
    read = min(read_seconds(folder) for _ in range(2))
    layers, head = weights_a_token(config_of("2B"))
    hidden, count = config_of("2B").hidden_size, config_of("2B").num_hidden_layers
    filters = 2 * count * hidden**2
    sizes = {
        "bfloat16": 2.0 * (layers + head),
        "int8": 1.0 * (layers + head),
        # The filter and the output matrix keep 8 bits; a scale for 32 weights of the others.
        "int4": (0.5 + 2 / 32) * (layers - filters) + filters + head,
    }
    found: dict[str, Any] = {"plain read, s": read}
    for kind, size in sizes.items():
        runs = [_in_a_process(kind) for _ in range(min(args.rounds, 3))]
        figures: dict[str, Any] = {name: spread([run[name] for run in runs]) for name in runs[0]}
        bound = machine.bandwidth / size
        figures["1 stream, share of the bandwidth bound"] = spread(
            [run["1 streams, tokens/s"] / bound for run in runs]
        )
        figures["load and first token / plain read"] = spread(
            [run["load and first token, s"] / read for run in runs]
        )
        figures["peak RSS / weights"] = spread([run["peak RSS, GB"] * 1e9 / size for run in runs])
        found[kind] = figures
    return found


def _in_a_process(kind: str) -> dict[str, float]:
    script = Path(__file__).with_name("engine_large.py")
    done = subprocess.run(
        [sys.executable, script, kind], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
