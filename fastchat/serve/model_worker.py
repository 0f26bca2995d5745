"""A worker's entry: parses flags, loads the model, then serves `worker.app`.

python3 -m fastchat.serve.model_worker --model-path PATH
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.engine.from_flags import load_model
from fastchat.entry import run_entry
from fastchat.flag_types import comma_list
from fastchat.model_flags import add_model_args, check_model_args
from fastchat.serve.model_names import model_names
from fastchat.serve.worker_entry import add_worker_flags, serve_worker, settings_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fastchat.serve.worker.app import WorkerSettings


def parser() -> argparse.ArgumentParser:
    """The worker's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.model_worker",
        description="Serves one model, and tells a controller of it.",
    )
    add_worker_flags(found)
    add = found.add_argument
    add("--model-names", type=comma_list, help="names to serve the model under, with commas")
    add("--conv-template", help="conversation template; the model's own if unset")
    add(
        "--lora-modules",
        nargs="+",
        type=_named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="LoRA adapters to serve beside the model, each under a name of its own",
    )
    add_model_args(found)
    return found


def _named_folder(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise argparse.ArgumentTypeError(f"is {text!r}; NAME=FOLDER is needed")
    return name, folder


def worker_settings(args: argparse.Namespace, port: int) -> WorkerSettings:
    """The settings that the flags describe; `port` is the bound one, should --port be 0."""
    from fastchat.serve.worker.settings import ServedAdapter

    names = model_names(args.model_path, args.model_names)
    adapters = {name: ServedAdapter(names[0], folder) for name, folder in args.lora_modules}
    return settings_of(args, port, names, adapters)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a worker until it is stopped."""
    args = parser().parse_args(argv)
    check_model_args(args)

    def make_app(port: int) -> FastAPI:
        from fastchat.serve.worker.app import create_worker_app

        settings = worker_settings(args, port)
        logger = logging.getLogger("fastchat.serve.model_worker")
        logger.info("Loading the model %s from %s", settings.model_names, args.model_path)
        return create_worker_app(load_model(args, conv_template=args.conv_template), settings)

    serve_worker(args, make_app)


if __name__ == "__main__":
    run_entry(main)
