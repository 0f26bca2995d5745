"""The page: tabs, sidebar, language, looks; and the application that serves it.

Imports Gradio, so it is imported after an entry point has parsed its flags.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI

from fastchat.serve.talking.backend import Backend, Backends
from fastchat.serve.talking.cluster import ClusterBackend
from fastchat.serve.talking.openai_server import OpenAIBackend
from fastchat.serve.web.arena_tab import ArenaTab
from fastchat.serve.web.board_tab import BoardTab
from fastchat.serve.web.catalogue import Catalogue
from fastchat.serve.web.chat_tab import ChatTab
from fastchat.serve.web.desk import Desk, Session
from fastchat.serve.web.history import History
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import PRIVATE, QUICK
from fastchat.serve.web.log import ConversationLog
from fastchat.serve.web.settings import PageSettings
from fastchat.serve.web.shelf import Shelf
from fastchat.serve.web.train_tab import TrainTab
from fastchat.serve.web.training import Runs
from fastchat.serve.web.words import LANGUAGES, language_of

logger = logging.getLogger(__name__)

_THEME_JS = """() => {
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem("fastchat-theme", dark ? "dark" : "light");
}"""


def make_desk(settings: PageSettings) -> Desk:
    """What the panes share.

    Raises:
        DataError: the history file cannot be used.
    """
    backends: list[Backend] = [OpenAIBackend(model.server) for model in settings.api_models]
    if settings.controller_url:
        backends.insert(0, ClusterBackend(settings.controller_url))
    return Desk(
        backend=Backends(*backends),
        history=History(settings.history_file),
        log=ConversationLog(settings.log_folder, settings.log_ip, time.time),
        limits=settings.limits,
        clock=time.monotonic,
        now=time.time,
        turn_limit=settings.turn_limit,
        behind_proxy=bool(settings.root_path),
    )


def create_page(settings: PageSettings) -> FastAPI:
    """The application that serves the page."""
    desk = make_desk(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        if settings.share_port is not None:
            await asyncio.to_thread(_share, settings.share_port)
        yield
        page.close()
        await desk.backend.close()
        desk.history.close()

    labels = Labels()
    page = _Page(settings, desk, labels)
    blocks = page.blocks
    blocks.queue(default_concurrency_limit=None, status_update_rate="auto")
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = desk
    looks = resources.files("fastchat.serve.web")
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=settings.auth or None,
        root_path=settings.root_path or None,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size="20mb",
        i18n=labels.i18n,
        theme=_theme(),
        css=(looks / "page.css").read_text("utf-8"),
        js=(looks / "page.js").read_text("utf-8"),
        allowed_paths=[],
        enable_monitoring=False,
    )
    return mounted


def _share(port: int) -> None:
    """Publishes the page; without Gradio's servers it stays where it is, and says so."""
    try:
        url = gr.networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # noqa: BLE001 (whatever a download and a foreign program raise)
        logger.warning("The page cannot be shared: %s", error)
    else:
        logger.warning("The page is public: %s", url)


def _theme() -> gr.Theme:
    # Fonts of the visitor's own machine; colours with enough contrast to be read by all.
    return gr.themes.Default(
        primary_hue="blue",
        secondary_hue="blue",
        font=["system-ui", "Noto Sans CJK SC", "Microsoft YaHei", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        body_text_color_subdued="*neutral_600",
        color_accent="*primary_600",
        input_placeholder_color="*neutral_500",
    )


class _Page:
    def __init__(self, settings: PageSettings, desk: Desk, labels: Labels) -> None:
        self._settings = settings
        self._desk = desk
        self._labels = labels
        catalogue = Catalogue(desk.backend, settings.api_models, reload=settings.reload_models)
        self._arenas: list[ArenaTab] = []
        with gr.Blocks(
            title="FastChat-Yuan2", fill_width=True, analytics_enabled=False
        ) as self.blocks:
            self._browser = _remembered("browser")
            self._current = _remembered("open")
            self._wish = _remembered("language")
            with gr.Sidebar(elem_id="sidebar"):
                shelf = Shelf(desk, labels)
                self._language = labels.make(
                    gr.Dropdown,
                    {"label": "language"},
                    choices=[(name, code) for code, name in LANGUAGES.items()],
                    value="en",
                    elem_id="language",
                )
                theme = labels.make(gr.Button, {"value": "theme"}, size="sm", elem_id="theme")
            gr.Markdown("# FastChat-Yuan2", elem_id="title", container=False)
            if settings.terms:
                gr.Markdown(settings.terms, elem_id="terms")
            self._tabs(shelf, catalogue)
            theme.click(None, None, None, js=_THEME_JS, **PRIVATE)
            self._wire()

    def _tabs(self, shelf: Shelf, catalogue: Catalogue) -> None:
        labels, settings, desk = self._labels, self._settings, self._desk
        self._train: TrainTab | None = None
        if not settings.many and settings.train_state is None:
            self._chat = ChatTab(desk, labels, catalogue, shelf)
            self._tabs_block = None
            return
        with gr.Tabs(selected="chat") as self._tabs_block:
            with labels.make(gr.Tab, {"label": "chat"}, id="chat"):
                self._chat = ChatTab(desk, labels, catalogue, shelf)
            if settings.many:
                self._arena_tabs(catalogue)
            if settings.train_state is not None:
                with labels.make(gr.Tab, {"label": "training"}, id="training") as tab:
                    runs = Runs(settings.train_state)
                    self._train = TrainTab(labels, runs, catalogue, settings.controller_url)
                    self._train.wire(tab, self._language, self._chat.models)

    def _arena_tabs(self, catalogue: Catalogue) -> None:
        labels, settings, desk = self._labels, self._settings, self._desk
        for name, label, blind in (("compare", "side_by_side", False), ("arena", "battle", True)):
            with labels.make(gr.Tab, {"label": label}, id=name):
                arena = ArenaTab(desk, labels, catalogue, blind=blind)
                arena.wire(self._language, settings.concurrency)
                self._arenas.append(arena)
        with labels.make(gr.Tab, {"label": "leaderboard"}, id="leaderboard") as tab:
            BoardTab(labels, settings.log_folder).wire(tab, self._language)
        with labels.make(gr.Tab, {"label": "about"}, id="about"):
            labels.make(gr.Markdown, {"value": "about_text"})

    def close(self) -> None:
        """Stops what the page has started, except training."""
        if self._train is not None:
            self._train.close()

    def _wire(self) -> None:
        chat, labels, blocks = self._chat, self._labels, self.blocks
        chat.wire(self._language, self._browser, self._current, self._settings.concurrency)
        first = blocks.load(
            self._visitor,
            [self._browser, self._wish],
            [self._browser, self._language, *self._tab_outputs, *labels.outputs],
            **QUICK,
        )
        first.then(
            chat.loaded,
            [self._browser, chat.pane.session, self._language, self._current],
            chat.outputs,
            **QUICK,
        )
        for arena in self._arenas:
            first.then(arena.loaded, [*arena.sessions, self._language], arena.outputs, **QUICK)
        self._language.input(
            self._switched,
            [self._language, chat.pane.session, *labels.choosers],
            [self._wish, chat.pane.chatbot, *labels.outputs],
            **QUICK,
        )
        blocks.unload(self._left)

    @property
    def _tab_outputs(self) -> list[Any]:
        return [] if self._tabs_block is None else [self._tabs_block]

    async def _visitor(self, request: gr.Request, browser: Any, wish: Any) -> list[Any]:
        spoken = wish or language_of(request.headers.get("accept-language", ""))
        language = spoken if spoken in LANGUAGES else "en"
        asked = [name for name in _NAMES_IN_URL if name in request.query_params]
        # Only where the address asks for it: somebody may have clicked on a tab by now.
        shown = gr.update(selected=_NAMES_IN_URL[asked[0]]) if asked else gr.skip()
        tabs = [shown for _ in self._tab_outputs]
        known = browser or secrets.token_hex(16)
        # The texts come in the browser's language by themselves; choices do not.
        return [known, language, *tabs, *self._labels.switch(language)]

    async def _switched(self, language: str, session: Session, *chosen: Any) -> list[Any]:
        shown = self._chat.pane.view(session, language)[self._chat.pane.chatbot]
        return [language, shown, *self._labels.switch(language, chosen)]

    async def _left(self, request: gr.Request) -> None:
        self._desk.leave(request.session_hash or "")


def _remembered(name: str) -> gr.BrowserState:
    # What the browser keeps has to be readable after a restart: no secret that is drawn anew.
    return gr.BrowserState("", storage_key=f"fastchat-{name}", secret="fastchat")  # noqa: S106


_NAMES_IN_URL = {
    "arena": "arena",
    "compare": "compare",
    "direct": "chat",
    "leaderboard": "leaderboard",
    "about": "about",
}
