"""Writes what has to be applied to a base model to get a target model.

    python -m fastchat.model.make_delta --base-model-path BASE --target-model-path TARGET \
        --delta-path DELTA

`fastchat.model.apply_delta` gives TARGET back bit by bit; `fastchat.model.delta` says how.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastchat.errors import FastChatError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    from fastchat.model.conversion_flags import add_folder_flags

    parser = argparse.ArgumentParser(
        prog="python -m fastchat.model.make_delta",
        description="Writes the difference between two models.",
    )
    add_folder_flags(parser, base="the model that others have", target="the model to give")
    parser.add_argument("--delta-path", "--delta_path", "--delta", required=True, help="output")
    args = parser.parse_args(argv)
    try:
        print(make_delta(args.base, args.target, args.delta_path))
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def make_delta(base_model_path: str, target_model_path: str, delta_path: str) -> str:
    """Writes target - base; returns a line that says what it holds.

    Raises:
        CheckpointError: a folder is unusable.
        SettingsError: `delta_path` is something else's.
    """
    from fastchat.model.delta import DeltaFacts, Digest, digest, tensors, xor
    from fastchat.model.model_folder import local_folder
    from fastchat.model.new_folder import copy_small_files, new_folder
    from fastchat.model.weight_files import ShardWriter, WeightFiles

    base_folder, target_folder = local_folder(base_model_path), local_folder(target_model_path)
    sources = {"base": base_folder, "target": target_folder}
    with (
        new_folder(delta_path, "make_delta", sources) as staging,
        WeightFiles(base_folder) as base,
        WeightFiles(target_folder) as target,
    ):
        writer, found = ShardWriter(staging), Digest()
        dtypes, whole, equal = {}, [], 0
        for name, wanted in tensors(target):
            found.add(name, wanted)
            dtypes[name] = str(wanted.dtype).removeprefix("torch.")
            if name in base and base.shape(name) == tuple(wanted.shape):
                change = xor(base.read(name).to(wanted.dtype), wanted)
                equal += not change.any()
            else:
                change = wanted
                whole.append(name)
            writer.add(name, change)
        writer.finish()
        copy_small_files(target_folder, staging)
        DeltaFacts(dtypes, whole, digest(base), found.text()).save(staging)
    return f"{delta_path}: {len(dtypes)} tensors, {equal} without a change, {len(whole)} whole"


if __name__ == "__main__":
    sys.exit(main())
