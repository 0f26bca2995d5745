"""Flags that the tools which convert model folders share. Imports nothing heavy."""

from __future__ import annotations

import argparse


def add_folder_flags(parser: argparse.ArgumentParser, *, base: str, target: str) -> None:
    """Adds --base-model-path and --target-model-path, in all their spellings."""
    for name, text in (("base", base), ("target", target)):
        parser.add_argument(
            f"--{name}-model-path",
            f"--{name}_model_path",
            f"--{name}",
            dest=name,
            required=True,
            help=text,
        )
