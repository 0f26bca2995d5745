"""The 2B geometry with random weights: how fast it starts, what it holds, how fast it answers.

    python playground/benchmark/engine_large.py KIND [--checkpoint FOLDER] [--streams 1 4 16]

KIND is bfloat16, int8 or int4. A process of its own for each, so that memory is its own too.
Prints one JSON object. Times from the start of the process are the kernel's; limits are
measured in the same process, once the engine has answered. The checkpoint's files should be
in the page cache: the second run counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

KINDS = ("bfloat16", "int8", "int4")
PROMPT, NEW, ROUNDS = 2, 16, 3


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--checkpoint", type=Path, help="made if not given")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 4, 16])
    args = parser.parse_args()
    from engine_machine import bandwidth, config_of
    from engine_models import burst, checkpoint, engine, greedy, prompts

    folder = args.checkpoint or checkpoint("2B")
    options: dict[str, Any] = {"quantization": None if args.kind == "bfloat16" else args.kind}
    found: dict[str, Any] = {"process start to imported, s": since_start()}
    start = time.perf_counter()
    with engine(folder, room=16 * 48, drafting=False, **options) as own:
        found["load, s"] = time.perf_counter() - start
        burst(own, prompts(1, PROMPT, 0), greedy(1))
        found["load and first token, s"] = time.perf_counter() - start
        found["process start to first token, s"] = since_start()
        found["peak RSS, GB"] = peak_rss() / 1e9
        for streams in args.streams:
            rates = [
                _decode_rate(burst(own, prompts(streams, PROMPT, 100 * streams + n), greedy(NEW)))
                for n in range(ROUNDS)
            ]
            found[f"{streams} streams, tokens/s"] = statistics.median(rates)
    config, rate = config_of("2B"), bandwidth()
    size = weight_bytes(config, args.kind)
    read = min(read_seconds(folder) for _ in range(3))
    touch = touch_seconds(int(size))
    found |= {
        "bandwidth, GB/s": rate / 1e9,
        "plain read, s": read,
        "first touch of as much memory, s": touch,
        "weights, GB": size / 1e9,
        "peak RSS / weights": found["peak RSS, GB"] * 1e9 / size,
        "load and first token / plain read": found["load and first token, s"] / read,
        "load and first token / plain read and first touch": found["load and first token, s"]
        / (read + touch),
        "process start to first token / plain read": found["process start to first token, s"]
        / read,
    }
    for streams in args.streams:
        steps = found[f"{streams} streams, tokens/s"] / streams
        found[f"{streams} streams, share of the bandwidth bound"] = steps * size / rate
    print(json.dumps(found))


def weights(config: Any) -> int:
    """Weights that a token meets."""
    from engine_machine import weights_a_token

    return sum(weights_a_token(config))


def weight_bytes(config: Any, kind: str) -> float:
    """Bytes of the weights that a token meets, as they are held."""
    filters = 2 * config.num_hidden_layers * config.hidden_size**2
    kept = filters + config.vocab_size * config.hidden_size
    every = weights(config)
    return {
        "bfloat16": 2.0 * every,
        "int8": 1.0 * every,
        # The filter and the output matrix keep 8 bits; a scale for 32 weights of the others.
        "int4": (0.5 + 2 / 32) * (every - kept) + kept,
    }[kind]


def _decode_rate(done: Any) -> float:
    """Tokens a second behind the first ones."""
    streams = len(done.first_s)
    rate: float = streams * (NEW - 1) / (done.wall_s - max(done.first_s))
    return rate


def since_start() -> float:
    """Seconds since this process started, to a hundredth."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def peak_rss() -> int:
    """Bytes, pages of files among them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def touch_seconds(size: int) -> float:
    """Writes new memory once, on all threads; on a virtual machine that may take longer."""
    import torch

    start = time.perf_counter()
    torch.empty(size // 4).fill_(1.0)
    return time.perf_counter() - start


def read_seconds(folder: Path) -> float:
    """A plain read of the weight files, in pieces."""
    start = time.perf_counter()
    for path in (*folder.glob("*.safetensors"), *folder.glob("*.bin")):
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 24)
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
