"""Says whether a training run fits its GPUs, what needs how much, and how to start it.

    python -m fastchat.train.plan --model 2b --gpus 8 --memory 48 --mode full

What is not given (ZeRO stage, offloading, batch size, gradient checkpointing) is chosen: the
fastest that fits. Loads no torch. The exit status is 0 if something fits, 1 if nothing does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, get_args

from fastchat.errors import FastChatError
from fastchat.flag_types import at_least_one, boolean
from fastchat.train.arguments import LoraArguments
from fastchat.train.memory.report import as_json, as_text
from fastchat.train.memory.search import Plan, plan
from fastchat.train.memory.setup import Mode, Offload, PlanSpec
from fastchat.train.memory.shape import find_shape

__all__ = ["Plan", "PlanSpec", "find_shape", "plan"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        found = plan(_spec(args))
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(as_json(found), indent=2) if args.json else as_text(found))
    return 0 if found.fits else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.train.plan",
        description="Says whether a training run fits, and how to start it.",
    )

    def add(flag: str, text: str, **options: Any) -> None:
        spellings = dict.fromkeys((f"--{flag}", f"--{flag.replace('-', '_')}"))
        parser.add_argument(*spellings, help=text, **options)

    stages = {"choices": ("auto", "0", "1", "2", "3"), "default": "auto"}
    held = {"choices": ("auto", *get_args(Offload)), "default": "auto"}
    add("model", "2b, 51b, 102b, or a folder with config.json", required=True)
    add("gpus", "GPUs in all (default: %(default)s)", type=at_least_one, default=1)
    add("memory", "memory of one GPU, in GiB", type=float, required=True)
    add("mode", "what is trained (default: %(default)s)", choices=get_args(Mode), default="full")
    add("zero", "DeepSpeed's ZeRO stage; 0 runs without DeepSpeed", **stages)
    add("offload", "what the machine's memory holds", **held)
    add("batch-size", "conversations a GPU and micro-batch", type=at_least_one)
    total = "conversations an optimizer step (default: %(default)s)"
    add("global-batch-size", total, type=at_least_one, default=128)
    longest = "longest row in tokens (default: %(default)s)"
    add("model-max-length", longest, type=at_least_one, default=1024)
    mean = "mean tokens of a conversation; the longest row's if not given"
    add("mean-length", mean, type=at_least_one)
    add("gradient-checkpointing", "keep one state a layer", type=boolean)
    add("lora-r", "rank of the adapter (default: %(default)s)", type=at_least_one, default=8)
    add("lora-dropout", "dropout of the adapter (default: %(default)s)", type=float, default=0.05)
    add(
        "lora-target-modules",
        "layers with an adapter, as for training; all seven if not given",
        nargs="+",
    )
    upstream = (
        "what FastChat's own Yuan2 training needs: padded rows, all logits, no flash attention"
    )
    add("upstream", upstream, action="store_true")
    add("json", "print the plan as JSON, sizes in bytes", action="store_true")
    return parser


def _spec(args: argparse.Namespace) -> PlanSpec:
    targets = None
    if args.lora_target_modules:
        lora = LoraArguments(lora_target_modules=args.lora_target_modules)
        targets = tuple(lora.target_modules)
    return PlanSpec(
        shape=find_shape(args.model),
        gpus=args.gpus,
        memory=args.memory,
        mode=args.mode,
        zero=None if args.zero == "auto" else int(args.zero),  # type: ignore[arg-type]
        offload=None if args.offload == "auto" else args.offload,
        batch_size=args.batch_size,
        global_batch_size=args.global_batch_size,
        max_length=args.model_max_length,
        mean_length=args.mean_length,
        gradient_checkpointing=args.gradient_checkpointing,
        lora_r=args.lora_r,
        lora_targets=targets,
        lora_dropout=args.lora_dropout,
        upstream=args.upstream,
    )


if __name__ == "__main__":
    sys.exit(main())
