"""Flags that say which model to load, and how; what FastChat knew and is not served here.

Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import os
import sys

from fastchat.engine_flags import add_engine_args
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one, comma_list
from fastchat.utils import DTYPES

_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu")

_UNSUPPORTED_DEFAULTS = {
    "gptq_ckpt": None,
    "gptq_wbits": 16,
    "gptq_groupsize": -1,
    "gptq_act_order": False,
    "awq_ckpt": None,
    "awq_wbits": 16,
    "awq_groupsize": -1,
    "enable_exllama": False,
    "exllama_max_seq_len": 4096,
    "exllama_gpu_split": None,
    "exllama_cache_8bit": False,
    "enable_xft": False,
    "xft_max_seq_len": 4096,
    "xft_dtype": None,
}
"""FastChat flags of other engines and quantisers: accepted at these values only."""


def add_model_args(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which model to load, and how."""
    add = parser.add_argument
    add("--model-path", required=True, help="a model folder, or a name on the model hub")
    add("--revision", default="main", help="revision on the model hub")
    add("--device", choices=_DEVICES, default="auto", help="auto: a GPU if there is one")
    add("--gpus", help="ids of the GPUs to use, such as 0,1; as many as --num-gpus or more")
    add("--num-gpus", type=at_least_one, default=1, help="GPUs to spread the model over")
    add("--max-gpu-memory", help="weights per GPU at most, such as 13GiB")
    add("--dtype", choices=DTYPES, help="number format of the weights; the checkpoint's if unset")
    add("--load-8bit", action="store_true", help="hold the weights as 8-bit integers")
    add("--cpu-offloading", action="store_true", help=argparse.SUPPRESS)
    for name, default in _UNSUPPORTED_DEFAULTS.items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            add(flag, action="store_true", help=argparse.SUPPRESS)
        else:
            kind = int if isinstance(default, int) else str
            add(flag, type=kind, default=default, help=argparse.SUPPRESS)
    add_engine_args(parser)


def check_model_args(args: argparse.Namespace) -> None:
    """Refuses what is not served, warns of what has no effect, and applies --gpus.

    Raises:
        SettingsError: names the flag.
    """
    for name, default in _UNSUPPORTED_DEFAULTS.items():
        if getattr(args, name) != default:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(
                f"{flag} belongs to a quantiser or engine that does not serve Yuan2.",
                hint="To save memory use --quantization or --load-8bit.",
                param=flag,
            )
    if args.cpu_offloading:
        print("warning: --cpu-offloading has no effect.", file=sys.stderr)
    if args.gpus:
        if len(comma_list(args.gpus)) < args.num_gpus:
            raise SettingsError(
                f"--gpus names {args.gpus}, fewer than the {args.num_gpus} of --num-gpus.",
                param="--gpus",
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = args.gpus
        os.environ["XPU_VISIBLE_DEVICES"] = args.gpus
