"""What the page can be told. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fastchat.constants import CONVERSATION_TURN_LIMIT
from fastchat.serve.talking.registered import ApiModel
from fastchat.serve.web.limits import Limits
from fastchat.serve.web.log import LogIp


@dataclass(slots=True)
class PageSettings:
    """What the page can be told.

    Attributes:
        controller_url: "" for no controller.
        api_models: models of other servers.
        many: all tabs, or the chat only.
        concurrency: answers written at a time.
        reload_models: ask for models whenever a page is loaded.
        history_file: where conversations are kept.
        log_folder: of the chats and votes; None for no log.
        terms: shown above the chat.
        auth: name and password pairs; empty for no login.
        root_path: where a proxy puts the page.
        share_port: the page's port, if it is to be published through Gradio's servers.
        train_state: where the training tab keeps which run it started; None for no such tab.
    """

    controller_url: str
    history_file: Path | str
    api_models: list[ApiModel] = field(default_factory=list)
    many: bool = False
    concurrency: int = 10
    reload_models: bool = False
    log_folder: Path | None = None
    log_ip: LogIp = "none"
    terms: str = ""
    auth: list[tuple[str, str]] = field(default_factory=list)
    root_path: str = ""
    limits: Limits = field(default_factory=Limits)
    turn_limit: int = CONVERSATION_TURN_LIMIT
    share_port: int | None = None
    train_state: Path | None = None
