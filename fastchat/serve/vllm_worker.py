"""A worker that computes with vLLM: parses flags, starts vLLM, then serves `worker.app`.

python3 -m fastchat.serve.vllm_worker --model-path PATH --num-gpus N
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one, comma_list
from fastchat.on_vllm.versions import check_version, is_cpu_build
from fastchat.serve.model_names import model_names
from fastchat.serve.worker_entry import add_worker_flags, serve_worker, settings_of

if TYPE_CHECKING:
    from fastapi import FastAPI


def parser() -> argparse.ArgumentParser:
    """The worker's own flags; vLLM's are known only to vLLM."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.vllm_worker",
        description="Serves one model with vLLM, and tells a controller of it. All flags of vLLM's"
        " engine are taken too, such as --max-model-len, --dtype, --enforce-eager or"
        " --gpu_memory_utilization.",
        conflict_handler="resolve",
    )
    add_worker_flags(found)
    add = found.add_argument
    add(
        "--model-path",
        "--model",
        required=True,
        help="a model folder, or a name on the model hub",
    )
    add("--model-names", type=comma_list, help="names to serve the model under, with commas")
    add("--conv-template", help="conversation template; the model's own if unset")
    add(
        "--num-gpus",
        type=at_least_one,
        help="GPUs that share each layer (vLLM's --tensor-parallel-size)",
    )
    add("--gpus", help="ids of the GPUs to use, such as 0,1; as many as --num-gpus or more")
    add("--seed", type=int, help="seed of vLLM's random numbers")
    return found


def prepare_environment(gpus: str | None, num_gpus: int | None) -> None:
    """Sets what vLLM reads from the environment when it is imported.

    Raises:
        SettingsError: --gpus names fewer than --num-gpus asks for.
    """
    if gpus is not None:
        if len(comma_list(gpus)) < (num_gpus or 1):
            raise SettingsError(
                f"--gpus names {gpus}, fewer than the {num_gpus} of --num-gpus.", param="--gpus"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    if is_cpu_build():  # which vLLM itself reads from the name of another distribution
        os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    # Nothing is told to vLLM's makers.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a worker until it is stopped."""
    args, vllm_flags = parser().parse_known_args(argv)
    check_version()
    prepare_environment(args.gpus, args.num_gpus)

    def make_app(port: int) -> FastAPI:
        from fastchat.on_vllm.loading import load_served_model
        from fastchat.serve.worker.app import create_worker_app

        settings = settings_of(args, port, model_names(args.model_path, args.model_names))
        logger = logging.getLogger("fastchat.serve.vllm_worker")
        logger.info("Loading the model %s from %s", settings.model_names, args.model_path)
        served = load_served_model(
            args.model_path,
            vllm_flags,
            num_gpus=args.num_gpus,
            seed=args.seed,
            conv_template=args.conv_template,
        )
        return create_worker_app(served, settings)

    serve_worker(args, make_app)


if __name__ == "__main__":
    run_entry(main)
