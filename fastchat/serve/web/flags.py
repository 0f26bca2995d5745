"""The flags of the web servers, and what they mean. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.constants import CONTROLLER_ADDRESS, CONVERSATION_TURN_LIMIT, LOGDIR
from fastchat.errors import SettingsError
from fastchat.flag_types import at_least_one, natural
from fastchat.serve.running import bind, run_app

if TYPE_CHECKING:
    from fastchat.serve.web.settings import PageSettings

PORT = 7860
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NO_EFFECT = {
    "use_remote_storage": "--use-remote-storage",
    "vision_arena": "--vision-arena",
    "random_questions": "--random-questions",
    "elo_results_file": "--elo-results-file",
    "leaderboard_table_file": "--leaderboard-table-file",
    "arena_hard_table": "--arena-hard-table",
    "ga_id": "--ga-id",
    "show_visualizer": "--show-visualizer",
    "password": "--password",
}


def history_file() -> Path:
    """Where conversations are kept unless a flag says otherwise."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "fastchat" / "conversations.sqlite"


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The flags that both web servers have."""
    found = argparse.ArgumentParser(prog=prog, description=description)
    add, hidden = found.add_argument, argparse.SUPPRESS
    add("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (FastChat's)
    add("--port", type=int, default=PORT, help="port to listen on")
    add("--share", action="store_true", help="publish the page through Gradio's servers, too")
    add(
        "--controller-url",
        default=CONTROLLER_ADDRESS,
        help='the controller; "" for none, with models of --register-api-endpoint-file only',
    )
    add("--concurrency-count", type=at_least_one, default=10, help="answers written at a time")
    add(
        "--model-list-mode",
        choices=("once", "reload"),
        default="once",
        help="when to ask for the models: once, or whenever a page is loaded",
    )
    add("--moderate", action="store_true", help=hidden)
    add("--show-terms-of-use", action="store_true", help="show --terms-file above the chat")
    add("--terms-file", type=Path, help="Markdown for --show-terms-of-use")
    add("--register-api-endpoint-file", type=Path, help="JSON file of models of other servers")
    add("--gradio-auth-path", help="file of user:password pairs; without it everybody may enter")
    add("--gradio-root-path", default="", help="path at which a proxy serves the page")
    add("--use-remote-storage", action="store_true", help=hidden)
    add("--history-file", type=Path, default=history_file(), help="where conversations are kept")
    add(
        "--log-ip",
        choices=("none", "hash", "full"),
        default="none",
        help="what the log of chats tells of visitors' addresses",
    )
    add(
        "--limit-user-concurrency",
        type=natural,
        default=0,
        help="answers that one visitor may have written at a time; 0 for any number",
    )
    add(
        "--limit-user-hourly",
        type=natural,
        default=0,
        help="messages that one visitor may send an hour; 0 for any number",
    )
    add(
        "--limit-turns",
        type=at_least_one,
        default=CONVERSATION_TURN_LIMIT,
        help="questions that a conversation may have",
    )
    add(
        "--train",
        action="store_true",
        help="a tab that trains models: whoever sees the page may start processes here",
    )
    return found


def add_arena_flags(found: argparse.ArgumentParser) -> None:
    """Adds the flags of FastChat's multi-tab server, which have no effect here."""
    for name in ("--vision-arena", "--show-visualizer"):
        found.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in (
        "--random-questions",
        "--elo-results-file",
        "--leaderboard-table-file",
        "--arena-hard-table",
        "--ga-id",
        "--password",
    ):
        found.add_argument(name, help=argparse.SUPPRESS)


def settings_of(args: argparse.Namespace, *, many: bool) -> PageSettings:
    """The page's settings.

    Raises:
        SettingsError: flags that cannot be used, or a file that cannot be read.
    """
    from fastchat.serve.talking.registered import read_api_models
    from fastchat.serve.web.limits import Limits
    from fastchat.serve.web.settings import PageSettings
    from fastchat.utils import parse_gradio_auth_creds

    apis = args.register_api_endpoint_file
    return PageSettings(
        controller_url=args.controller_url,
        history_file=args.history_file,
        api_models=read_api_models(apis) if apis else [],
        many=many,
        concurrency=args.concurrency_count,
        reload_models=args.model_list_mode == "reload",
        log_folder=Path(LOGDIR) if LOGDIR else None,
        log_ip=args.log_ip,
        terms=_terms(args),
        auth=parse_gradio_auth_creds(args.gradio_auth_path) if args.gradio_auth_path else [],
        root_path=args.gradio_root_path,
        limits=Limits(args.limit_user_concurrency, args.limit_user_hourly),
        turn_limit=args.limit_turns,
        train_state=Path(args.history_file).with_name("training.json") if args.train else None,
    )


def run(args: argparse.Namespace, *, many: bool, name: str) -> None:
    """Serves a page until it is stopped.

    Raises:
        FastChatError: it cannot start.
    """
    _check(args)
    settings = settings_of(args, many=many)
    sockets = bind(args.host, args.port)

    from fastchat.serve.web.page import create_page
    from fastchat.utils import build_logger

    logger = build_logger(name, f"{name}.log")
    logger.info("args: %s", vars(args))
    if args.share:
        settings.share_port = sockets[0].getsockname()[1]
    run_app(create_page(settings), sockets, args.host)


def _check(args: argparse.Namespace) -> None:
    if args.moderate:
        raise SettingsError(
            "--moderate would send every message to another company's server, and none is set.",
            hint="Leave it out.",
            param="--moderate",
        )
    if not args.controller_url and args.register_api_endpoint_file is None:
        raise SettingsError(
            'With --controller-url "" there are no models.',
            hint="Name some with --register-api-endpoint-file.",
            param="--controller-url",
        )
    if args.train and args.host not in _LOOPBACK and not args.gradio_auth_path:
        raise SettingsError(
            f"--train on --host {args.host} would let everybody start processes here.",
            hint="Add --gradio-auth-path, or --host 127.0.0.1.",
            param="--train",
        )
    for name, flag in _NO_EFFECT.items():
        if getattr(args, name, None):
            print(f"warning: {flag} has no effect.", file=sys.stderr)


def _terms(args: argparse.Namespace) -> str:
    if not args.show_terms_of_use:
        return ""
    if args.terms_file is None:
        raise SettingsError(
            "--show-terms-of-use needs a text.", hint="Name its file with --terms-file."
        )
    try:
        return str(args.terms_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--terms-file {args.terms_file} cannot be read: {error}.") from error
