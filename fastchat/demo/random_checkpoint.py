"""Writes a checkpoint of a real size with random weights: to try loading, serving and planning.

    python -m fastchat.demo.random_checkpoint --model 2b --out FOLDER [--format bin]

Names, shapes and number format are the published ones, so what reads the published files
reads these. Weights are written one by one as they are made. The model knows nothing: what
it answers is noise.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.errors import FastChatError
from fastchat.train.memory.shape import PUBLISHED, find_shape

if TYPE_CHECKING:
    import torch

    from fastchat.model import YuanConfig

FORMATS = ("safetensors", "bin")
SHARD_GB = 5.0
_POSITIONS = {"2b": 8192, "51b": 4096, "102b": 4096}

Shapes = Sequence[tuple[str, tuple[int, ...]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.demo.random_checkpoint",
        description="Writes a Yuan2 checkpoint of a real size with random weights.",
    )
    add = parser.add_argument
    add("--model", required=True, help=f"{', '.join(PUBLISHED)}, or a folder with config.json")
    add("--out", required=True, help="folder to write; new or empty")
    add("--format", choices=FORMATS, default="safetensors", help="default: %(default)s")
    add("--shard-gb", type=float, default=SHARD_GB, help="GB a file at most; default: %(default)s")
    add("--tokenizer", help="folder with the published tokenizer; a small one's if not given")
    add("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args(argv)
    try:
        write_random_checkpoint(
            args.out,
            published_config(args.model),
            file_format=args.format,
            shard_bytes=int(args.shard_gb * 1e9),
            tokenizer=args.tokenizer,
            seed=args.seed,
        )
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{args.out}: a {args.model} with random weights")
    return 0


def published_config(model: str) -> YuanConfig:
    """The config of 2b, 51b or 102b, or of a folder.

    Raises:
        FastChatError: neither a published model nor a folder with a Yuan2's config.json.
    """
    from fastchat.model import YuanConfig

    shape = find_shape(model)
    if shape.folder is not None:
        found: YuanConfig = YuanConfig.from_pretrained(shape.folder)
        return found
    return YuanConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=_POSITIONS[shape.name],
        tie_word_embeddings=shape.tied,
    )


def write_random_checkpoint(
    target: str | Path,
    config: YuanConfig,
    *,
    file_format: str = "safetensors",
    shard_bytes: int = int(SHARD_GB * 1e9),
    tokenizer: str | Path | None = None,
    seed: int = 0,
) -> None:
    """Writes a checkpoint in bfloat16, which appears under its name when it is whole.

    Args:
        target: a folder that is new or empty, or that the same call has made.
        config: of the network.
        file_format: "safetensors" or "bin". A .bin file is in memory while it is made.
        shard_bytes: size of a file at most, unless one tensor is larger.
        tokenizer: folder to take it from; the demo's if None.
        seed: of the weights.

    Raises:
        FastChatError: the target is something else, or cannot be written.
    """
    import torch

    import fastchat.demo
    from fastchat.model.new_folder import new_folder
    from fastchat.model.published_weights import published_shapes
    from fastchat.model.tokenizer_loading import load_tokenizer

    source = Path(tokenizer or Path(fastchat.demo.__file__).parent / "checkpoint")
    generator = torch.Generator().manual_seed(seed)
    shapes = sorted(published_shapes(config))
    tool = f"random_checkpoint {config.to_json_string()} {file_format} {shard_bytes} {seed}"
    with new_folder(target, tool, {"tokenizer": source}) as staging:
        weights = _RandomWeights(config, generator)
        shards = list(plan_shards(shapes, shard_bytes))
        names = shard_names(file_format, len(shards))
        for file, shard in zip(names, shards, strict=True):
            write = _write_bin if file_format == "bin" else _write_safetensors
            write(staging / file, shard, weights)
        if len(shards) > 1:
            _write_index(staging, file_format, names, shards)
        config.dtype = torch.bfloat16
        config.architectures = ["YuanForCausalLM"]
        config.save_pretrained(staging)
        load_tokenizer(source).save_pretrained(staging)


def plan_shards(shapes: Shapes, limit: int) -> Iterator[Shapes]:
    """Cuts a list of weights into files of at most `limit` bytes, two a number."""
    shard: list[tuple[str, tuple[int, ...]]] = []
    for name, shape in shapes:
        if shard and size_in_bytes([*shard, (name, shape)]) > limit:
            yield shard
            shard = []
        shard.append((name, shape))
    yield shard


def size_in_bytes(shapes: Shapes) -> int:
    """Bytes of weights in bfloat16."""
    return sum(2 * math.prod(shape) for _, shape in shapes)


def shard_names(file_format: str, count: int) -> list[str]:
    """File names as transformers gives them."""
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[
        file_format
    ]
    if count == 1:
        return [f"{stem}.{suffix}"]
    return [f"{stem}-{number:05}-of-{count:05}.{suffix}" for number in range(1, count + 1)]


class _RandomWeights:
    """Weights of the size that training leaves: norms near 1, the rest near 0."""

    def __init__(self, config: YuanConfig, generator: torch.Generator) -> None:
        self._spread = config.initializer_range
        self._generator = generator
        self._tied = config.tie_word_embeddings
        self._embedding: torch.Tensor | None = None

    def make(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """The next weight, in bfloat16; the output matrix is the embedding where it is tied."""
        import torch

        head = name in ("lm_head.weight", "model.embed_tokens.weight") and self._tied
        if head and self._embedding is not None:
            return self._embedding
        made = torch.empty(shape, dtype=torch.bfloat16)
        for part in torch.split(made.view(-1), 1 << 24):  # no second copy in fp32
            numbers = torch.randn(len(part), generator=self._generator) * self._spread
            part.copy_(numbers + ("norm" in name))
        if head:
            self._embedding = made
        return made


def _write_safetensors(path: Path, shard: Shapes, weights: _RandomWeights) -> None:
    """The format by hand: its library takes no tensors one by one."""
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shard:
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shard:
            file.write(weights.make(name, shape).view(-1).view(torch.uint8).numpy().data)


def _write_bin(path: Path, shard: Shapes, weights: _RandomWeights) -> None:
    import torch

    torch.save({name: weights.make(name, shape) for name, shape in shard}, path)


def _write_index(
    folder: Path, file_format: str, files: Iterable[str], shards: Sequence[Shapes]
) -> None:
    from fastchat.model.weight_files import write_json

    places = {name: file for file, shard in zip(files, shards, strict=True) for name, _ in shard}
    total = sum(map(size_in_bytes, shards))
    stem = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[file_format]
    write_json(
        folder / f"{stem}.index.json",
        {"metadata": {"total_size": total}, "weight_map": places},
    )


if __name__ == "__main__":
    sys.exit(main())
