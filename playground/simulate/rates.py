"""How fast this machine's engine is, as the flags of `dispatch.py`.

    python playground/simulate/rates.py --model FOLDER [--dtype bfloat16] [--rounds 5]

Measures steps that only generate, with 1 to 32 requests at once, and prompts of two steps; fits a
line to the first and gives the rest of the time to the tokens of the second. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence

import numpy as np

from fastchat.engine.base import Engine, GenerationRequest, SamplingParams
from fastchat.engine.loading import load_served_model
from fastchat.engine.settings import EngineSettings

_CROWDS = (1, 4, 16, 32)
_NEW = 32
_PROMPT = 1024
_STEPS = 2  # of the engine's 512 tokens


def parser() -> argparse.ArgumentParser:
    """The flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--model", required=True, help="a Yuan2 folder")
    found.add_argument("--dtype", help="of the weights; the checkpoint's if left out")
    found.add_argument("--rounds", type=int, default=5)
    return found


async def _one(engine: Engine, prompt: Sequence[int], new: int) -> tuple[float, float]:
    """When the first and the last token came."""
    sampling = SamplingParams(temperature=0.0, max_new_tokens=new, ignore_eos=True)
    first = 0.0
    async for event in engine.generate(GenerationRequest(prompt, sampling)):
        if event.token_ids:
            first = first or time.perf_counter()
    return first, time.perf_counter()


def _prompt(chance: random.Random, size: int) -> list[int]:
    return [chance.randrange(3, 250) for _ in range(size)]


async def step_time(engine: Engine, crowd: int, chance: random.Random) -> float:
    """Seconds of a step in which so many requests generate: after all have begun."""
    asked = [_one(engine, _prompt(chance, 16), _NEW) for _ in range(crowd)]
    times = await asyncio.gather(*asked)
    return (max(last for _, last in times) - max(first for first, _ in times)) / (_NEW - 1)


async def prompt_time(engine: Engine, chance: random.Random) -> float:
    """Seconds from a long prompt to its first token."""
    began = time.perf_counter()
    first, _ = await _one(engine, _prompt(chance, _PROMPT), 2)
    return first - began


async def measure(engine: Engine, rounds: int) -> tuple[float, float, float]:
    """Seconds of a step, of a row in it, and of a prompt's token."""
    chance = random.Random(0)
    await step_time(engine, 2, chance)
    steps: dict[int, list[float]] = {crowd: [] for crowd in _CROWDS}
    prompts = []
    for _ in range(rounds):
        for crowd, found in steps.items():
            found.append(await step_time(engine, crowd, chance))
        prompts.append(await prompt_time(engine, chance))
    await engine.close()
    medians = [statistics.median(found) for found in steps.values()]
    row_s, step_s = np.polyfit(_CROWDS, medians, 1)
    token_s = (statistics.median(prompts) - _STEPS * step_s) / _PROMPT
    return float(step_s), float(row_s), token_s


def main() -> None:
    """Prints the flags."""
    args = parser().parse_args()
    settings = EngineSettings(cache_tokens=16_384, drafting=False)
    served = load_served_model(args.model, device="cpu", dtype=args.dtype, engine=settings)
    step_s, row_s, token_s = asyncio.run(measure(served.engine, args.rounds))
    print(f"--step-ms {1e3 * step_s:.2f} --row-ms {1e3 * row_s:.3f} --token-ms {1e3 * token_s:.3f}")


if __name__ == "__main__":
    main()
