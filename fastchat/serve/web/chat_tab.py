"""The page's chat: a pane, the models, settings, votes, and the history beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gradio as gr

from fastchat.constants import INPUT_CHAR_LEN_LIMIT
from fastchat.serve.web.catalogue import Catalogue
from fastchat.serve.web.controls import Controls
from fastchat.serve.web.desk import Desk, Session
from fastchat.serve.web.growing import Changes
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import QUICK
from fastchat.serve.web.pane import Pane, Surroundings
from fastchat.serve.web.shelf import Shelf
from fastchat.serve.web.text_files import SUFFIXES
from fastchat.serve.web.words import say

Verdict = Literal["upvote", "downvote", "flag"]
VERDICTS: tuple[Verdict, ...] = ("upvote", "downvote", "flag")


def message_box(labels: Labels, name: str, *, files: bool) -> Any:
    """Where a visitor types; Enter sends."""
    return labels.make(
        gr.MultimodalTextbox,
        {"label": "message", "placeholder": "message_hint"},
        show_label=False,
        elem_id=f"{name}-box",
        elem_classes="box",
        file_types=list(SUFFIXES),
        file_count="multiple",
        sources=["upload"] if files else [],
        max_lines=8,
        autofocus=files,
        max_plain_text_length=1_000_000,
    )


class ChatTab:
    """The chat. Its components are made where it is built; the shelf goes into the sidebar.

    Attributes:
        models: the drop-down of models.
    """

    def __init__(self, desk: Desk, labels: Labels, catalogue: Catalogue, shelf: Shelf) -> None:
        self._desk = desk
        self._catalogue = catalogue
        self._shelf = shelf
        make = labels.make
        with gr.Row(elem_classes="models"):
            self.models = make(
                gr.Dropdown, {"label": "model"}, choices=[], elem_id="model", container=False
            )
            self._about = gr.Markdown(elem_id="model-about", container=False)
        self.pane = Pane(desk, labels, name="chat", most_characters=INPUT_CHAR_LEN_LIMIT)
        self.box = message_box(labels, "chat", files=True)
        small: dict[str, Any] = {"size": "sm", "min_width": 80}
        with gr.Row(elem_classes="acts"):
            self._votes = [
                make(gr.Button, {"value": verdict}, interactive=False, **small)
                for verdict in VERDICTS
            ]
            self._regenerate = make(
                gr.Button, {"value": "regenerate"}, elem_classes="apart", **small
            )
            self._undo = make(gr.Button, {"value": "undo"}, **small)
        self._controls = Controls(labels)

    def wire(
        self, language: Any, browser: gr.BrowserState, current: gr.BrowserState, concurrency: int
    ) -> None:
        """Connects all events.

        Args:
            language: the component that tells the language.
            browser: the browser's secret name.
            current: the id of the conversation to continue after a reload.
            concurrency: answers that the page writes at a time.
        """
        pane, shelf = self.pane, self._shelf
        self._language, self._browser, self._current = language, browser, current
        around = Surroundings(
            language, self.models, self.box, self._controls.inputs, concurrency, browser=browser
        )
        answered = pane.wire_alone(around, self._regenerate)
        self._undo.click(pane.undone, [pane.session, language], pane.outputs, **QUICK)
        who = [browser, pane.session]
        for each in answered:
            each.then(self._after, who, [*shelf.outputs, current, *self._votes], **QUICK)
        for button, verdict in zip(self._votes, VERDICTS, strict=True):
            button.click(self._judge(verdict), [pane.session, language], self._votes, **QUICK)
        moved = [
            shelf.list.input(shelf.opened, [*who, shelf.list], None, **QUICK),
            shelf.new.click(self._begin_anew, [pane.session], None, **QUICK),
            *shelf.wire(pane.session, language, browser),
        ]
        for each in moved:
            each.then(self.shown, [*who, language], self.outputs, **QUICK)
        self.models.input(self._chosen, self.models, self._chosen_outputs, **QUICK)

    @property
    def outputs(self) -> list[Any]:
        """What `shown` and `loaded` may change."""
        own = [self.models, self._current, *self._votes]
        return list({*self.pane.outputs, *self._shelf.outputs, *self._chosen_outputs, *own})

    @property
    def _chosen_outputs(self) -> list[Any]:
        return [self._about, *self._controls.inputs]

    async def loaded(
        self,
        request: gr.Request,
        browser: Any,
        session: Session,
        language: str,
        current: str | None,
    ) -> Changes:
        """A page was opened: its models, and the conversation that it had open before."""
        names = await self._catalogue.open_names()
        if not names:
            trouble = self._catalogue.trouble or say(language, "nobody_registered")
            gr.Warning(say(language, "no_models", error=trouble))
        if current and not len(session.thread):
            await self._shelf.opened(request, browser, session, current)
        wished = request.query_params.get("model") or session.thread.model
        chosen = wished if wished in names else (names[0] if names else None)
        changes: Changes = {self.models: gr.update(choices=names, value=chosen)}
        changes |= self._begin_with(chosen, session)
        return changes | await self.shown(request, browser, session, language)

    async def shown(
        self, request: gr.Request, browser: Any, session: Session, language: str
    ) -> Changes:
        """Another conversation is open."""
        changes = self.pane.view(session, language)
        changes |= await self._shelf.listed(request, browser, session)
        changes[self._current] = session.thread.id
        changes[self._controls.inputs[0]] = session.thread.system
        return changes | self._votes_on(session)

    async def _after(self, request: gr.Request, browser: Any, session: Session) -> Changes:
        changes = await self._shelf.listed(request, browser, session)
        changes[self._current] = session.thread.id
        return changes | self._votes_on(session)

    def _votes_on(self, session: Session) -> Changes:
        path = session.thread.path
        on = bool(path) and path[-1].role == "assistant" and "error" not in path[-1].stats
        return {button: gr.update(interactive=on) for button in self._votes}

    async def _begin_anew(self, session: Session) -> None:
        if not session.answering:
            thread = self._desk.new_thread(system=session.thread.system, model=session.thread.model)
            thread.id = ""  # until something is said
            session.open(thread)

    async def _chosen(self, model: str | None) -> Changes:
        system, sampling = self._catalogue.recommended(model or "")
        changes: Changes = {self._about: self._catalogue.description(model or "")}
        return changes | (self._controls.begin_with(system, sampling) if system else {})

    def _begin_with(self, model: str | None, session: Session) -> Changes:
        if model is None:
            return {}
        system, sampling = self._catalogue.recommended(model)
        return {
            self._about: self._catalogue.description(model),
            **self._controls.begin_with(session.thread.system or system, sampling),
        }

    def _judge(self, verdict: Verdict) -> Any:
        async def judge(session: Session, language: str) -> Sequence[Any]:
            self._desk.log.verdict(verdict, session.thread, session.ip)
            gr.Info(say(language, "thanks"))
            return [gr.update(interactive=False)] * len(VERDICTS)

        return judge
