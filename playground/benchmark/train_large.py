"""One training step of an adapter on the 2B geometry: the memory that it takes, and the plan's.

    python playground/benchmark/train_large.py lora [--checkpoint FOLDER] [--tokens 64]
    python playground/benchmark/train_large.py qlora

Loads the checkpoint as training does, makes AdamW's states, and takes a step over one
conversation. Memory is the process's, above what it held before the model was loaded; the
plan's is without what only a GPU takes. Prints one JSON object, sizes in GB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from engine_models import checkpoint
from train_memory import peak_mb
from training_data import IGNORED, Row

from fastchat.data.tree import merge
from fastchat.model.tokenizer_loading import load_tokenizer
from fastchat.train.arguments import LoraArguments, ModelArguments
from fastchat.train.batching import ForestCollator
from fastchat.train.loading import load_for_training
from fastchat.train.memory.parts import memory_parts
from fastchat.train.memory.setup import PlanSpec, Setup
from fastchat.train.memory.shape import PUBLISHED
from fastchat.train.training_arguments import TrainingArguments


def main() -> None:
    """Prints what was measured and what was planned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("lora", "qlora"))
    parser.add_argument("--checkpoint", type=Path, help="made if not given")
    parser.add_argument("--tokens", type=int, default=64, help="of the conversation")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    args = parser.parse_args()
    folder = args.checkpoint or checkpoint("2B")
    found = planned(args) | {f"measured {name}": size for name, size in measured(args, folder)}
    found["measured / planned"] = found["measured step"] / found["planned step"]
    print(json.dumps(found))


def measured(args: argparse.Namespace, folder: Path) -> list[tuple[str, float]]:
    """GB above what the process held before, and seconds."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 77_000, (args.tokens,), generator=rng).tolist()
    half = args.tokens // 3
    row = Row("0", ids, [IGNORED] * half + ids[half:])
    inputs = ForestCollator()([merge([row])])
    del inputs["item_ids"]
    with tempfile.TemporaryDirectory() as output:
        settings = TrainingArguments(output_dir=output, use_cpu=True, bf16=True, report_to="none")
    before = reset_peak()
    start = time.perf_counter()
    lora = LoraArguments(q_lora=args.mode == "qlora")
    tokenizer = load_tokenizer(folder)
    model = load_for_training(
        ModelArguments(model_name_or_path=str(folder)), settings, lora, tokenizer
    ).train()
    loading = time.perf_counter() - start
    loaded = held() - before
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    standing = reset_peak() - before
    print(f"{loaded:.2f} GB at most while loading, {standing:.2f} GB standing", file=sys.stderr)
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    optimizer.step()
    taking = time.perf_counter() - start
    return [
        ("loading", loaded),
        ("standing", standing),
        ("step", held() - before),
        ("loading, s", loading),
        ("step, s", taking),
    ]


def planned(args: argparse.Namespace) -> dict[str, float]:
    """GB of each part of the plan, and their sum."""
    spec = PlanSpec(
        shape=PUBLISHED["2b"], gpus=1, memory=24, mode=args.mode, max_length=args.tokens
    )
    setup = Setup(
        spec=spec,
        zero=0,
        offload="none",
        batch_size=1,
        gradient_checkpointing=args.gradient_checkpointing,
    )
    parts = {part.name: part.size / 1e9 for part in memory_parts(setup)}
    del parts["CUDA context"]
    return {f"planned {name}": size for name, size in parts.items()} | {
        "planned step": sum(parts.values())
    }


def reset_peak() -> float:
    """Starts the peak anew; GB held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return held()


def held() -> float:
    """GB at the peak."""
    return peak_mb() * 2**20 / 1e9


if __name__ == "__main__":
    sys.exit(main())
