"""The main job on the embedded default: fine-tune the tiny Yuan2, serve it, chat with it.

    fastchat demo
    fastchat demo --no-chat

Runs the same entries as a real job; nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one

if TYPE_CHECKING:
    from rich.console import Console

    from fastchat.serve.processes import Services

MODEL_NAME = "yuan2-demo"
QUESTIONS = ("你是谁", "how do I fine-tune")
_READY_S = 120.0


def parser() -> argparse.ArgumentParser:
    """The demo's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat demo",
        description="Fine-tunes a tiny Yuan2 on bundled conversations (about a minute on two"
        " cores), serves it through controller, worker and OpenAI-compatible API, and chats"
        " with it.",
    )
    add = found.add_argument
    add("--no-chat", action="store_true", help="leave the services up until Ctrl-C instead")
    add("--host", default="127.0.0.1", help="address of the API server")
    add("--port", type=int, default=0, help="port of the API server; 0 takes a free one")
    add("--output-dir", type=Path, help="where the fine-tuned model goes; a new folder if unset")
    add("--time-limit", type=at_least_one, default=600, help="longest training, in seconds")
    add("--seed", type=int, default=0, help="of the training")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the demo from the base checkpoint to the chat."""
    args = parser().parse_args(argv)
    # Read when torch is loaded. On cores that others use too, threads that spin while they
    # wait slow training down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, if there, asks for a GPU

    from rich.console import Console

    from fastchat.serve.processes import Services

    console = Console(highlight=False)
    folder = _output_folder(args.output_dir)
    model_folder, log_folder = folder / "model", folder / "logs"
    console.print(
        "[bold]FastChat-Yuan2 demo[/bold]\n"
        "  1. a tiny Yuan2 answers before it is fine-tuned\n"
        "  2. it is fine-tuned on the bundled conversations\n"
        "  3. it is served, and you chat with it\n"
        "The tiny model is a toy: it knows its bundled answers and nothing else."
        " With real weights:\n"
        "  python3 -m fastchat.serve.cli --model-path IEITYuan/Yuan2-2B-hf\n\n"
        "Loading the tiny base model ...",
        soft_wrap=True,
    )
    _train(console, model_folder, time_limit_s=args.time_limit, seed=args.seed)
    with Services(log_folder) as services:
        url = serve(services, model_folder, args.host, args.port)
        console.print(_how_to_ask(url), markup=False, soft_wrap=True)
        if args.no_chat:
            console.print("\nThe services run until Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                services.wait_until_one_ends()
        else:
            _chat(console, model_folder)
    console.print(f"The services have stopped. The fine-tuned model stays in {model_folder}.")


def _output_folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="fastchat-demo-"))
    if wanted.exists() and any(wanted.iterdir()):
        raise SettingsError(
            f"--output-dir {wanted} is not empty.", hint="Give a folder that is new or empty."
        )
    return wanted


def _train(console: Console, model_folder: Path, *, time_limit_s: int, seed: int) -> None:
    from fastchat.demo.progress import finetune_with_progress

    figures = finetune_with_progress(
        console, model_folder, QUESTIONS, time_limit_s=time_limit_s, seed=seed
    )
    if figures.out_of_time:
        console.print(
            f"[yellow]The time limit of {time_limit_s} s ended the training before it was done;"
            " a longer --time-limit gives better answers.[/yellow]"
        )
    console.print(
        f"\n{figures.exact} of {figures.asked} bundled questions get exactly the trained answer.\n"
    )


def serve(services: Services, model_folder: Path, host: str, port: int) -> str:
    """Starts controller, worker and API server on a model folder; returns the API's URL."""
    from fastchat.serve.processes import Service, free_ports
    from fastchat.serve.running import address_of

    controller_port, worker_port, free = free_ports(3)
    api_port = port or free
    controller = f"http://127.0.0.1:{controller_port}"
    worker = f"http://127.0.0.1:{worker_port}"
    api = address_of(host, api_port, tls=False)
    quiet = {"LOGDIR": ""}
    local = ["--host", "127.0.0.1", "--port"]
    for service in (
        Service(
            "controller",
            "fastchat.serve.controller",
            [*local, str(controller_port)],
            f"{controller}/health",
            quiet,
        ),
        Service(
            "model_worker",
            "fastchat.serve.model_worker",
            [
                *local,
                str(worker_port),
                *("--model-path", str(model_folder), "--model-names", MODEL_NAME),
                *("--controller-address", controller, "--worker-address", worker),
                *("--device", "cpu"),
            ],
            f"{worker}/health",
            quiet,
        ),
        Service(
            "openai_api_server",
            "fastchat.serve.openai_api_server",
            ["--host", host, "--port", str(api_port), "--controller-address", controller],
            f"{api}/health",
            quiet,
        ),
    ):
        services.start(service)
    services.wait_until_ready(_READY_S)
    return api


def _how_to_ask(url: str) -> str:
    body = f'{{"model": "{MODEL_NAME}", "messages": [{{"role": "user", "content": "你是谁"}}]}}'
    return (
        f"OpenAI-compatible API: {url}/v1\n"
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'"
        f" -d {shlex.quote(body)}"
    )


def _chat(console: Console, model_folder: Path) -> None:
    from fastchat.serve.cli import main as chat

    console.print("\nChat with it; an empty line or !!exit ends the demo.")
    chat(["--model-path", str(model_folder), "--device", "cpu"])


if __name__ == "__main__":
    run_entry(main)
