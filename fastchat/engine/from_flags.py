"""Loads the model that an entry point's flags describe. Imports nothing heavy until then."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fastchat.engine_flags import engine_options

if TYPE_CHECKING:
    from fastchat.engine.served import ServedModel


def load_model(args: argparse.Namespace, *, conv_template: str | None = None) -> ServedModel:
    """Loads the model that the flags describe. torch is imported here."""
    from fastchat.engine.batching.scheduler import Limits
    from fastchat.engine.loading import load_served_model
    from fastchat.engine.settings import EngineSettings

    options = {**engine_options(args)}
    limits = Limits(**options.pop("limits"))
    return load_served_model(
        args.model_path,
        device=args.device,
        dtype=args.dtype,
        num_gpus=args.num_gpus,
        max_gpu_memory=args.max_gpu_memory,
        revision=args.revision,
        load_8bit=args.load_8bit,
        conv_template=conv_template,
        seed=getattr(args, "seed", None),
        engine=EngineSettings(limits=limits, **options),
    )
