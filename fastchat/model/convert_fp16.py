"""Saves a model in 16 bits a number.

    python -m fastchat.model.convert_fp16 --in-folder MODEL --out-folder OUT [--dtype bfloat16]

A value that float16 cannot hold (beyond 65504) is an error, not an infinity. One tensor is in
memory at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from fastchat.errors import CheckpointError, FastChatError, SettingsError

DTYPES = ("float16", "bfloat16")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fastchat.model.convert_fp16", description="Saves a model in 16 bits."
    )
    parser.add_argument("--in-folder", "--in_folder", required=True, help="a model folder")
    parser.add_argument("--out-folder", "--out_folder", required=True, help="where to save")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        print(convert(args.in_folder, args.out_folder, args.dtype))
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def convert(in_folder: str, out_folder: str, dtype: str = "float16") -> str:
    """Saves a model in another number format; returns a line that says so.

    Raises:
        CheckpointError: the folder is unusable, or a value does not fit the format.
        SettingsError: `out_folder` is something else's, or an unknown format.
    """
    import torch

    from fastchat.model.delta import tensors
    from fastchat.model.model_folder import local_folder
    from fastchat.model.new_folder import copy_small_files, new_folder
    from fastchat.model.weight_files import ShardWriter, WeightFiles

    if dtype not in DTYPES:
        raise SettingsError(f"dtype is {dtype!r}; allowed are {' and '.join(DTYPES)}.")
    wanted = getattr(torch, dtype)
    source = local_folder(in_folder)
    with (
        new_folder(out_folder, f"convert_fp16 {dtype}", {"model": source}) as staging,
        WeightFiles(source) as weights,
    ):
        writer = ShardWriter(staging)
        for name, tensor in tensors(weights):
            result = tensor.to(wanted) if tensor.is_floating_point() else tensor
            if not torch.equal(result.isfinite(), tensor.isfinite()):
                raise CheckpointError(
                    f"{name} holds values up to {tensor.abs().max():.3g}, which {dtype} cannot.",
                    hint="Use --dtype bfloat16.",
                )
            writer.add(name, result)
        writer.finish()
        copy_small_files(source, staging)
        _say_dtype(staging / "config.json", dtype)
    return f"{out_folder}: {len(weights.names)} tensors in {dtype}"


def _say_dtype(path: Path, dtype: str) -> None:
    """Names the format in config.json, by the name that it has there."""
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    text = json.dumps(config | dict.fromkeys(keys, dtype), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
