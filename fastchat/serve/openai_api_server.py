"""The API server's entry: parses flags, then serves `openai.app`.

    python3 -m fastchat.serve.openai_api_server --host 0.0.0.0 --port 8000

`app` and `app_settings` may be imported; they are made when they are first asked for.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one, strings
from fastchat.serve.flags import add_server_flags
from fastchat.serve.openai.limits import ApiKey
from fastchat.serve.openai.settings import AppSettings, CorsSettings, read_api_keys
from fastchat.serve.running import TlsFiles, bind, run_app
from fastchat.serve.tracing import trace_to

if TYPE_CHECKING:
    from fastapi import FastAPI

PORT = 8000


@functools.cache
def _settings() -> AppSettings:
    return AppSettings()


@functools.cache
def _app() -> FastAPI:
    from fastchat.serve.openai.app import create_openai_app

    return create_openai_app(_settings())


def __getattr__(name: str) -> Any:
    made_when_asked_for = {"app": _app, "app_settings": _settings}
    if name in made_when_asked_for:
        return made_when_asked_for[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


async def get_gen_params(
    model_name: str,
    worker_addr: str,
    messages: str | list[dict[str, Any]],
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    max_tokens: int | None = None,
    echo: bool | None = None,
    logprobs: int | None = None,
    stop: str | list[str] | None = None,
    best_of: int | None = None,
    use_beam_search: bool | None = None,
) -> dict[str, Any]:
    """What a worker has to be sent for a chat; for programs that speak to workers themselves.

    Raises:
        RequestError: the messages cannot be used.
        WorkerUnavailableError: the worker does not tell its template.
    """
    from fastchat.protocol.openai_api_protocol import ChatCompletionRequest
    from fastchat.serve.openai.params import chat_params

    request = ChatCompletionRequest.model_validate(
        {
            "model": model_name,
            "messages": messages,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "max_tokens": max_tokens,
            "stop": stop,
        }
    )
    cluster = _app().state.cluster
    params = chat_params(
        request, await cluster.template(cluster.worker_at(worker_addr), model_name)
    )
    params |= {"echo": bool(echo), "logprobs": logprobs}
    extras = {"best_of": best_of, "use_beam_search": use_beam_search}
    return params | {name: value for name, value in extras.items() if value is not None}


def _api_keys(text: str) -> list[ApiKey] | None:
    try:
        return read_api_keys(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    """The API server's flags."""
    settings = _settings()
    found = argparse.ArgumentParser(
        prog="fastchat.serve.openai_api_server",
        description="Serves the models of a controller's workers as OpenAI's API does.",
    )
    add = found.add_argument
    add_server_flags(found, port=PORT)
    add("--controller-address", default=settings.controller_address)
    add("--allow-credentials", action="store_true", help="let web pages send cookies")
    for flag in ("--allowed-origins", "--allowed-methods", "--allowed-headers"):
        add(flag, type=strings, default=["*"], help='JSON list, such as ["*"]')
    add(
        "--api-keys",
        type=_api_keys,
        default=settings.api_keys,
        help="keys separated by commas, or @FILE; unset leaves the API open",
    )
    add(
        "--max-body-bytes",
        type=at_least_one,
        default=settings.max_body_bytes,
        help="of a request; larger ones are refused with 413",
    )
    add(
        "--queue-timeout",
        type=at_least_one,
        help="seconds that a request may wait before it is begun; then it ends with 408",
    )
    add(
        "--drain-seconds",
        type=at_least_one,
        default=60,
        help="on TERM, what runs may take so long to finish",
    )
    return found


def create_openai_api_server(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the flags, puts them into `app_settings` and sets up `app`.

    Raises:
        SettingsError: flags that cannot be used together.
    """
    args = parser().parse_args(argv)
    trace_to(args.otlp_endpoint, "fastchat-api")
    cors = CorsSettings(
        args.allowed_origins, args.allowed_methods, args.allowed_headers, args.allow_credentials
    )
    settings = _settings()
    settings.controller_address = args.controller_address
    settings.api_keys = args.api_keys
    settings.max_body_bytes = args.max_body_bytes
    settings.queue_timeout_s = args.queue_timeout
    settings.drain_s = args.drain_seconds

    from fastchat.serve.openai.app import add_cors

    add_cors(_app(), cors)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Runs an API server until it is stopped."""
    args = create_openai_api_server(argv)
    tls = TlsFiles.from_environment() if args.ssl else None
    sockets = bind(args.host, args.port)

    from fastchat.utils import build_logger

    logger = build_logger("openai_api_server", "openai_api_server.log")
    shown = {**vars(args), "api_keys": "set" if args.api_keys else "none"}
    logger.info("args: %s", shown)
    run_app(_app(), sockets, args.host, tls)


if __name__ == "__main__":
    run_entry(main)
