"""Starts controller, workers and API server on this machine, and leaves them running.

python3 -m fastchat.serve.launch_all_serve --model-path-address PATH@localhost@20002
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastchat.entry import run_entry
from fastchat.errors import FastChatError, SettingsError
from fastchat.flag_types import at_least_one
from fastchat.model_flags import add_model_args
from fastchat.serve.launching import Records
from fastchat.serve.processes import Service
from fastchat.serve.running import address_of

_CONTROLLER = "fastchat.serve.controller"
_WORKER = "fastchat.serve.model_worker"
_API = "fastchat.serve.openai_api_server"

_WORKER_VALUES = (
    *("revision", "device", "num_gpus", "max_gpu_memory", "dtype"),
    *("model_names", "limit_worker_concurrency", "stream_interval", "conv_template"),
    *("quantization", "kv_cache_tokens", "max_num_seqs", "max_num_batched_tokens"),
    *("max_waiting", "draft_tokens", "threads"),
)
_WORKER_SWITCHES = ("load_8bit", "cpu_offloading", "no_register")


def parser() -> argparse.ArgumentParser:
    """The launcher's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.launch_all_serve",
        description="Starts controller, workers and API server, and leaves them running.",
        conflict_handler="resolve",
    )
    add_model_args(found)
    add = found.add_argument
    add(
        "--model-path-address",
        nargs="+",
        help="workers, each PATH@HOST@PORT or PATH@HOST@PORT@GPUS",
    )
    add("--model-path", help="the only worker's model, in place of --model-path-address")
    add("--gpus", default="0", help="GPUs of a worker that names none")
    add("--controller-host", default="localhost")
    add("--controller-port", type=int, default=21001)
    add("--dispatch-method", default="shortest_queue")
    add("--worker-host", default="localhost")
    add("--worker-port", type=int, default=20002)
    add("--model-names", help="names of the model, with commas; for a single worker")
    add("--conv-template", help="conversation template; the model's own if unset")
    add("--limit-worker-concurrency", type=at_least_one)
    add("--stream-interval", type=at_least_one)
    add("--no-register", action="store_true")
    add("--server-host", default="localhost")
    add("--server-port", type=int, default=8001)
    add("--allow-credentials", action="store_true")
    add("--api-keys", help="keys separated by commas, or @FILE")
    add("--log-dir", type=Path, default=Path("logs"), help="logs, and the record of processes")
    add("--ready-seconds", type=at_least_one, default=600, help="how long loading may take")
    return found


def services(args: argparse.Namespace) -> list[Service]:
    """What the flags ask for, in the order in which it is started.

    Raises:
        SettingsError: no model, or an address that is not PATH@HOST@PORT.
    """
    controller = address_of(args.controller_host, args.controller_port, tls=False)
    host, port = args.controller_host, str(args.controller_port)
    found = [
        Service(
            "controller",
            _CONTROLLER,
            ["--host", host, "--port", port, "--dispatch-method", args.dispatch_method],
            f"{controller}/health",
        )
    ]
    found += [_worker(args, place, controller) for place in _places(args)]
    api = address_of(args.server_host, args.server_port, tls=False)
    flags = ["--host", args.server_host, "--port", str(args.server_port)]
    flags += ["--controller-address", controller]
    flags += ["--allow-credentials"] if args.allow_credentials else []
    # Not among the flags, which every user of the machine can read.
    keys = {"FASTCHAT_API_KEYS": args.api_keys} if args.api_keys else {}
    ready = "/health/live" if args.no_register else "/health"
    found.append(Service("openai_api_server", _API, flags, api + ready, keys))
    return found


def _places(args: argparse.Namespace) -> list[tuple[str, str, int, str]]:
    if not args.model_path_address:
        if not args.model_path:
            raise SettingsError(
                "No model is named.", hint="Give --model-path-address PATH@HOST@PORT."
            )
        return [(args.model_path, args.worker_host, args.worker_port, args.gpus)]
    places = []
    for text in args.model_path_address:
        parts = text.split("@")
        if len(parts) not in (3, 4) or not parts[2].isdigit() or not all(parts):
            raise SettingsError(
                f"--model-path-address holds {text!r}; PATH@HOST@PORT or PATH@HOST@PORT@GPUS"
                " is needed."
            )
        gpus = parts[3] if len(parts) == 4 else args.gpus
        places.append((parts[0], parts[1], int(parts[2]), gpus))
    return places


def _worker(args: argparse.Namespace, place: tuple[str, str, int, str], controller: str) -> Service:
    path, host, port, gpus = place
    address = address_of(urlsplit(f"//{host}").hostname or host, port, tls=False)
    flags = ["--model-path", path, "--host", host, "--port", str(port)]
    flags += ["--worker-address", address, "--controller-address", controller]
    for name in _WORKER_VALUES:
        value = getattr(args, name)
        if value is not None:
            flags += [f"--{name.replace('_', '-')}", str(value)]
    flags += [f"--{name.replace('_', '-')}" for name in _WORKER_SWITCHES if getattr(args, name)]
    if args.device == "cuda":
        flags += ["--gpus", gpus]
    return Service(f"model_worker_{port}", _WORKER, flags, f"{address}/health")


def main(argv: Sequence[str] | None = None) -> None:
    """Starts everything, and returns once it answers; stops it again if something fails."""
    args = parser().parse_args(argv)
    records = Records(args.log_dir)
    started = []
    try:
        for service in services(args):
            record = records.launch(service)
            started.append(record)
            print(f"{service.name}: process {record.pid}, log {records.log(service.name)}")
            records.wait_until_ready(service, record, args.ready_seconds)
    except (FastChatError, KeyboardInterrupt):
        records.stop(started, grace_s=10)
        raise
    print(f"Ready: {address_of(args.server_host, args.server_port, tls=False)}/v1")


if __name__ == "__main__":
    run_entry(main)
