"""A worker of several models in one process: parses flags, loads them, serves `worker.app`.

python3 -m fastchat.serve.multi_model_worker --model-path A --model-names a --model-path B
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.engine.from_flags import load_model
from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import comma_list
from fastchat.model_flags import add_model_args, check_model_args
from fastchat.serve.model_names import model_names
from fastchat.serve.worker_entry import add_worker_flags, serve_worker, settings_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fastchat.engine.served import ServedModel
    from fastchat.serve.worker.settings import ServedAdapter


@dataclass(frozen=True, slots=True)
class ModelWish:
    """One model to serve: its folder, its names and its template."""

    path: str
    names: list[str]
    conv_template: str | None


def parser() -> argparse.ArgumentParser:
    """The worker's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.multi_model_worker",
        description="Serves several models from one process, and tells a controller of them.",
        conflict_handler="resolve",
    )
    add_worker_flags(found)
    add_model_args(found)
    add = found.add_argument
    add(
        "--model-path",
        action="append",
        required=True,
        help="a model folder, or a name on the model hub; once for each model",
    )
    add(
        "--model-names",
        action="append",
        type=comma_list,
        help="names of a model, with commas; once for each --model-path",
    )
    add(
        "--conv-template",
        action="append",
        help="conversation template; once for each --model-path, or once for all",
    )
    return found


def wishes(args: argparse.Namespace) -> list[ModelWish]:
    """What the flags ask for, model by model.

    Raises:
        SettingsError: a flag is given for some of the models only, or a name twice.
    """
    paths: list[str] = args.model_path
    names = args.model_names or [None] * len(paths)
    templates = args.conv_template or [None]
    if len(templates) == 1:
        templates = templates * len(paths)
    for flag, given in (("--model-names", names), ("--conv-template", templates)):
        if len(given) != len(paths):
            raise SettingsError(
                f"{flag} is given {len(given)} times and --model-path {len(paths)} times;"
                " give it once for each model.",
                param=flag,
            )
    found = [
        ModelWish(path, model_names(path, named), template)
        for path, named, template in zip(paths, names, templates, strict=True)
    ]
    served = [name for wish in found for name in wish.names]
    twice = sorted({name for name in served if served.count(name) > 1})
    if twice:
        raise SettingsError(
            f"Two models have the name {twice[0]!r}.",
            hint="Tell them apart with --model-names.",
            param="--model-names",
        )
    return found


def with_adapters(
    wished: Sequence[ModelWish],
) -> tuple[list[ModelWish], dict[str, ServedAdapter]]:
    """Tells models from adapters of models that are served too, which share their weights.

    An adapter whose base is not among them is a model of its own.
    """
    from fastchat.serve.worker.settings import ServedAdapter

    bases = {Path(wish.path).resolve(): wish.names[0] for wish in wished}
    wholes: list[ModelWish] = []
    adapters: dict[str, ServedAdapter] = {}
    for wish in wished:
        base = _base_of(Path(wish.path))
        found = None if base is None else bases.get(base)
        if found is None:
            wholes.append(wish)
        else:
            adapters |= {name: ServedAdapter(found, wish.path) for name in wish.names}
    return wholes, adapters


def _base_of(folder: Path) -> Path | None:
    """The folder of an adapter's base; None for what is no adapter."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return Path(config["base_model_name_or_path"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a worker until it is stopped."""
    args = parser().parse_args(argv)
    check_model_args(args)
    wished = wishes(args)

    def make_app(port: int) -> FastAPI:
        from fastchat.serve.worker.app import create_worker_app

        wholes, adapters = with_adapters(wished)
        models: dict[str, ServedModel] = {}
        for wish in wholes:
            models |= dict.fromkeys(wish.names, _load(args, wish))
        return create_worker_app(models, settings_of(args, port, list(models), adapters))

    serve_worker(args, make_app)


def _load(args: argparse.Namespace, wish: ModelWish) -> ServedModel:
    logger = logging.getLogger("fastchat.serve.multi_model_worker")
    logger.info("Loading the model %s from %s", wish.names, wish.path)
    one = copy.copy(args)
    one.model_path = wish.path
    return load_model(one, conv_template=wish.conv_template)


if __name__ == "__main__":
    run_entry(main)
