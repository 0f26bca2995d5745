"""How long every entry point takes to print its --help, in seconds of wall time.

    python playground/benchmark/startup.py [--json]

A parser is built before torch is loaded, so each should stay under half a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

ROUNDS = 5
ENTRIES = (
    "fastchat",
    "fastchat.serve.controller",
    "fastchat.serve.model_worker",
    "fastchat.serve.openai_api_server",
    "fastchat.serve.cli",
    "fastchat.serve.huggingface_api",
    "fastchat.serve.register_worker",
    "fastchat.serve.test_message",
    "fastchat.train.train",
    "fastchat.train.train_mem",
    "fastchat.train.train_yuan2",
    "fastchat.train.train_lora",
    "fastchat.train.train_with_template",
    "fastchat.train.dpo",
    "fastchat.train.plan",
    "fastchat.data.validate",
    "fastchat.demo.command",
    "fastchat.demo.recipe",
    "fastchat.demo.tokenizer_recipe",
)


def help_seconds(module: str) -> float:
    """Wall time of one `python -m MODULE --help`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    results = {}
    for module in ENTRIES:
        help_seconds(module)  # compiles what is not compiled yet
        rounds = [help_seconds(module) for _ in range(ROUNDS)]
        results[module] = {
            "median_s": statistics.median(rounds),
            "min_s": min(rounds),
            "max_s": max(rounds),
        }
    if args.json:
        print(json.dumps(results, indent=2))
        return
    for module, row in results.items():
        spread = f"({row['min_s']:.2f} to {row['max_s']:.2f})"
        print(f"{module:34}  {row['median_s']:.2f} s  {spread}")


if __name__ == "__main__":
    main()
