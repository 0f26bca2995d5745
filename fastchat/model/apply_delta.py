"""Applies a delta to a base model.

    python -m fastchat.model.apply_delta --base-model-path BASE --target-model-path TARGET \
        --delta-path DELTA

Of a delta that `fastchat.model.make_delta` wrote the result is the target bit by bit, checked
by its digest. FastChat's own deltas, model folders that hold target - base as numbers, are
added in fp32 and saved in the delta's format. One tensor is in memory at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.errors import CheckpointError, FastChatError

if TYPE_CHECKING:
    from torch import Tensor

    from fastchat.model.delta import DeltaFacts
    from fastchat.model.weight_files import WeightFiles


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    from fastchat.model.conversion_flags import add_folder_flags

    parser = argparse.ArgumentParser(
        prog="python -m fastchat.model.apply_delta", description="Applies a delta to a base model."
    )
    add_folder_flags(parser, base="the model that the delta was made from", target="output")
    parser.add_argument("--delta-path", "--delta_path", "--delta", required=True, help="the delta")
    parser.add_argument(
        "--low-cpu-mem", "--low_cpu_mem", "--low-cpu-memory", action="store_true",
        help="accepted; memory use is always low",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        print(apply_delta(args.base, args.target, args.delta_path))
    except FastChatError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def apply_delta(base_model_path: str, target_model_path: str, delta_path: str) -> str:
    """Saves base + delta; returns a line that says what was checked.

    Raises:
        CheckpointError: a folder is unusable, the base is not the delta's, or the result is not
            what the delta was made from.
        SettingsError: the target is something else's.
    """
    from fastchat.model.delta import DELTA_FILE, DeltaFacts, Digest, digest
    from fastchat.model.model_folder import local_folder
    from fastchat.model.new_folder import copy_small_files, new_folder
    from fastchat.model.weight_files import ShardWriter, WeightFiles

    base_folder, delta_folder = local_folder(base_model_path), local_folder(delta_path)
    facts = DeltaFacts.load(delta_folder)
    sources = {"base": base_folder, "delta": delta_folder}
    with (
        new_folder(target_model_path, "apply_delta", sources) as staging,
        WeightFiles(base_folder) as base,
        WeightFiles(delta_folder) as delta,
    ):
        if facts is not None and digest(base) != facts.base:
            raise CheckpointError(
                f"The delta {delta_folder} was made from another base than {base_folder}.",
                hint="Give the very model that it was made from, in the same number format.",
            )
        writer, found = ShardWriter(staging), Digest()
        for name in delta.names:
            result = (
                _added(base, delta, name) if facts is None else _exact(base, delta, name, facts)
            )
            found.add(name, result)
            writer.add(name, result)
        if facts is not None and found.text() != facts.target:
            raise CheckpointError(
                f"Base and delta do not give the model that {delta_folder} was made from.",
                hint="The delta's files are damaged: copy or download them again.",
            )
        writer.finish()
        copy_small_files(delta_folder, staging)
        (staging / DELTA_FILE).unlink(missing_ok=True)
    checked = "added in fp32" if facts is None else "the target bit by bit, by its digest"
    return f"{target_model_path}: {len(delta.names)} tensors, {checked}"


def _exact(base: WeightFiles, delta: WeightFiles, name: str, facts: DeltaFacts) -> Tensor:
    import torch

    from fastchat.model.delta import xor

    change, dtype = delta.read(name), getattr(torch, facts.dtypes[name])
    if name in facts.whole:
        return change
    return xor(base.read(name).to(dtype), change).view(dtype)


def _added(base: WeightFiles, delta: WeightFiles, name: str) -> Tensor:
    if name not in base or base.shape(name) != delta.shape(name):
        here = base.shape(name) if name in base else "missing"
        raise CheckpointError(
            f"The delta's {name} has the shape {delta.shape(name)}; the base's is {here}.",
            hint="Give the model that the delta was made from.",
        )
    change = delta.read(name)
    return (base.read(name).float() + change.float()).to(change.dtype)


if __name__ == "__main__":
    sys.exit(main())
