"""The visitor's history beside the chat: list, search, rename, delete, export, import."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr

from fastchat.errors import DataError, FastChatError
from fastchat.serve.web.desk import Desk, Session, new_id
from fastchat.serve.web.growing import Changes
from fastchat.serve.web.history_files import read, to_json, to_markdown
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import PRIVATE, QUICK
from fastchat.serve.web.visitors import owner_of
from fastchat.serve.web.words import say

_MOST_BYTES = 20 * 2**20
# The browser makes the file: nothing of it is left on the server.
_DOWNLOAD_JS = """(file) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([file.text], {type: "text/plain"}));
    link.download = file.name;
    link.click();
    URL.revokeObjectURL(link.href);
}"""


class Shelf:
    """The list of conversations and what can be done with them.

    Attributes:
        list: the list; its value is a conversation's id.
    """

    def __init__(self, desk: Desk, labels: Labels) -> None:
        self._desk = desk
        make = labels.make
        self.new = make(gr.Button, {"value": "new_chat"}, variant="primary", elem_id="new-chat")
        self._search = make(
            gr.Textbox, {"label": "search", "placeholder": "search_hint"}, elem_id="search"
        )
        self.list = make(gr.Radio, {"label": "conversations"}, choices=[], elem_id="history")
        with make(gr.Accordion, {"label": "manage"}, open=False):
            self._name = make(gr.Textbox, {"label": "name"}, max_lines=1)
            with gr.Row():
                self._rename = make(gr.Button, {"value": "rename"}, size="sm", min_width=60)
                self._delete = make(
                    gr.Button, {"value": "delete"}, size="sm", min_width=60, variant="stop"
                )
            self._json = make(gr.Button, {"value": "export_json"}, size="sm")
            self._markdown = make(gr.Button, {"value": "export_markdown"}, size="sm")
            self._file = gr.JSON(visible=False)
        self._import = make(
            gr.UploadButton,
            {"label": "import"},
            size="sm",
            file_types=[".json", ".md"],
            elem_id="import",
        )

    def wire(self, session: gr.State, language: Any, browser: gr.BrowserState) -> list[Any]:
        """Connects what changes only the shelf.

        Returns:
            The events after which another conversation, or none, may be open.
        """
        self._browser = browser
        who = [browser, session]
        self._search.change(self.listed, [*who, self._search], self.outputs, **QUICK)
        self._rename.click(self._renamed, [*who, self._name], self.outputs, **QUICK)
        for button, write in ((self._json, _json_file), (self._markdown, _markdown_file)):
            written = button.click(_exporter(write), session, self._file, **QUICK)
            written.then(None, self._file, None, js=_DOWNLOAD_JS, **PRIVATE)
        return [
            self._delete.click(self._deleted, who, self.outputs, **QUICK),
            self._import.upload(
                self._imported, [*who, language, self._import], self.outputs, **QUICK
            ),
        ]

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [self.list, self._name]

    async def listed(
        self, request: gr.Request, browser: Any, session: Session, search: str = ""
    ) -> Changes:
        """The list as it is now."""
        owner = owner_of(request, browser)
        found = await asyncio.to_thread(self._desk.history.list, owner, search.strip())
        choices = [(each.title, each.id) for each in found]
        ids = {each.id for each in found}
        chosen = session.thread.id if session.thread.id in ids else None
        return {
            self.list: gr.update(choices=choices, value=chosen),
            self._name: session.thread.title,
        }

    async def opened(
        self, request: gr.Request, browser: Any, session: Session, thread_id: str | None
    ) -> None:
        """Puts a conversation of the visitor's into a pane; an unknown one changes nothing."""
        if session.answering or not thread_id:
            return
        owner = owner_of(request, browser)
        try:
            session.open(await asyncio.to_thread(self._desk.history.load, owner, thread_id))
        except DataError as error:
            gr.Warning(str(error))
            return
        session.owner = owner

    async def _renamed(
        self, request: gr.Request, browser: Any, session: Session, title: str
    ) -> Changes:
        title = " ".join(title.split())
        if title and session.thread.id:
            session.thread.title = title
            self._desk.save(session, [])
        return await self.listed(request, browser, session)

    async def _deleted(self, request: gr.Request, browser: Any, session: Session) -> Changes:
        if session.thread.id and not session.answering:
            owner = owner_of(request, browser)
            try:
                self._desk.history.delete(owner, session.thread.id)
            except DataError as error:
                gr.Warning(str(error))
            session.open(self._desk.new_thread())
            session.thread.id = ""
        return await self.listed(request, browser, session)

    async def _imported(
        self,
        request: gr.Request,
        browser: Any,
        session: Session,
        language: str,
        file: str | None,
    ) -> Changes:
        owner = owner_of(request, browser)
        try:
            threads = await asyncio.to_thread(_read, Path(file or ""), self._desk.now())
            for thread in threads:
                self._desk.history.save(owner, thread, now=self._desk.now())
        except FastChatError as error:
            gr.Warning(str(error))
            return await self.listed(request, browser, session)
        gr.Info(say(language, "imported", count=len(threads)))
        if threads and not session.answering:
            await self.opened(request, browser, session, threads[-1].id)
        return await self.listed(request, browser, session)


def _read(path: Path, now: float) -> Any:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path.name} is larger than {_MOST_BYTES} bytes.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read: {error}.") from error
    return read(text, new_id=new_id, now=now)


def _json_file(session: Session) -> tuple[str, str]:
    return to_json([session.thread]), ".json"


def _markdown_file(session: Session) -> tuple[str, str]:
    return to_markdown(session.thread), ".md"


def _exporter(write: Any) -> Any:
    async def export(session: Session) -> dict[str, str]:
        text, suffix = write(session)
        name = f"conversation-{session.thread.id[:8] or 'empty'}{suffix}"
        return {"name": name, "text": text}

    return export
