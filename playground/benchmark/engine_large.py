"""The 2B geometry with random weights: how fast it loads, what it holds, how fast it answers.

    python playground/benchmark/engine_large.py KIND    (for engine.py, which reads the JSON)

A process of its own for each kind of weights, so that memory is its own too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Prints one JSON object."""
    kind = sys.argv[1]
    start = time.perf_counter()
    from engine_models import burst, checkpoint, engine, greedy, prompts

    imported = time.perf_counter()
    options: dict[str, Any] = {"quantization": None if kind == "bfloat16" else kind}
    found: dict[str, Any] = {"import, s": imported - start}
    with engine(checkpoint("2B"), room=16 * 160, drafting=False, **options) as own:
        burst(own, prompts(1, 8, 0), greedy(1))
        found["load and first token, s"] = time.perf_counter() - imported
        found["peak RSS, GB"] = peak_rss() / 1e9
        for streams in (1, 4, 16):
            new = 24
            rates = [
                _decode_rate(burst(own, prompts(streams, 8, 100 * streams + n), greedy(new)), new)
                for n in range(3)
            ]
            found[f"{streams} streams, tokens/s"] = sorted(rates)[1]
    print(json.dumps(found))


def _decode_rate(done: Any, new: int) -> float:
    """Tokens a second behind the first ones."""
    streams = len(done.first_s)
    rate: float = streams * (new - 1) / (done.wall_s - max(done.first_s))
    return rate


def peak_rss() -> int:
    """Bytes, pages of files among them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_seconds(folder: Path) -> float:
    """A plain read of the weight files, in pieces."""
    start = time.perf_counter()
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(1 << 24)
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
