"""Flags of the engine that serves Yuan2. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from fastchat.flag_types import at_least_one, natural

QUANTIZATIONS = ("int8", "int4")


def add_engine_args(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how requests are computed together."""
    add = parser.add_argument_group("engine for Yuan2").add_argument
    add("--quantization", choices=QUANTIZATIONS, help="bits a weight, on a CPU; fewer are faster")
    add(
        "--kv-cache-tokens",
        type=at_least_one,
        help="tokens kept of all requests together; a share of the free memory if unset",
    )
    add("--max-num-seqs", type=at_least_one, default=64, help="requests computed at once")
    add(
        "--max-num-batched-tokens",
        type=at_least_one,
        default=512,
        help="tokens computed in a step; more make long prompts faster and others wait longer",
    )
    add("--max-waiting", type=natural, default=512, help="requests in line; more are refused")
    add(
        "--draft-tokens",
        type=natural,
        default=6,
        help="tokens guessed from the text so far and checked at once; 0 guesses none",
    )
    add("--threads", type=at_least_one, help="threads that compute on a CPU; one a core if unset")


def engine_options(args: argparse.Namespace) -> Mapping[str, Any]:
    """The flags by the names of `EngineSettings` and `Limits`."""
    return {
        "quantization": args.quantization,
        "cache_tokens": args.kv_cache_tokens,
        "threads": args.threads,
        "drafting": args.draft_tokens > 0,
        "limits": {
            "running": args.max_num_seqs,
            "waiting": args.max_waiting,
            "step_tokens": args.max_num_batched_tokens,
            "draft_tokens": args.draft_tokens,
        },
    }
