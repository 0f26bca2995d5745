"""A chat pane: one model, its conversation, and all that can be done with it.

The page has one for a chat and two for a comparison. What takes time is an async generator, so
that no visitor waits for another.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from fastchat.errors import FastChatError, RequestError
from fastchat.serve.web.controls import sampling_of, system_of
from fastchat.serve.web.desk import Desk, Session, new_id
from fastchat.serve.web.growing import Changes, Growing, streaming
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import PRIVATE, QUICK
from fastchat.serve.web.questions import Typed, check_may_ask, checked
from fastchat.serve.web.rendering import STEP, first_shown, rendered
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.visitors import greet
from fastchat.serve.web.words import say
from fastchat.shown_text import LATEX, written


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pane reads from the page around it.

    Attributes:
        box: where messages are typed.
        settings: `Controls.inputs`.
        browser: the browser's secret name; None for a pane that keeps no conversations.
        concurrency: answers that the page writes at a time.
    """

    language: Any
    model: Any
    box: Any
    settings: Sequence[Any]
    concurrency: int
    browser: Any = None

    @property
    def long(self) -> dict[str, Any]:
        """How events are connected that write answers."""
        return {
            **PRIVATE,
            "concurrency_limit": self.concurrency,
            "concurrency_id": "answers",
            "trigger_mode": "multiple",  # what comes too early is refused, not ignored
        }


class Pane:
    """A pane. Its components are made where it is built.

    Args:
        desk: what all panes share.
        labels: makes components with texts.
        name: tells panes of a page apart, in their components' ids.
        box: name of the box that it answers; the pane's own name by default.
        most_characters: a longer message is cut.
        label: what the chat is called, a key of `words`.

    Attributes:
        session: the state that handlers work on.
    """

    def __init__(
        self,
        desk: Desk,
        labels: Labels,
        *,
        name: str,
        most_characters: int,
        label: str = "conversation",
        box: str = "",
    ) -> None:
        self._desk = desk
        self._most_characters = most_characters
        self.session = gr.State(Session(Thread(""), box=box or name))
        small: dict[str, Any] = {"size": "sm", "min_width": 60}
        self._earlier = labels.make(gr.Button, {"value": "earlier"}, visible=False, **small)
        self.chatbot = labels.make(
            gr.Chatbot,
            {"label": label, "placeholder": "empty_chat"},
            elem_id=f"{name}-chat",
            elem_classes="chat",
            editable="user",
            allow_tags=False,
            latex_delimiters=list(LATEX),
            buttons=["copy"],
            show_label=False,
            height="max(20rem, calc(100vh - 27.5rem))",
            # Else an answer and the figures under it are one, which cannot be copied.
            group_consecutive_messages=False,
        )
        with gr.Row(visible=False, elem_classes="versions", elem_id=f"{name}-versions") as row:
            self._back = labels.make(gr.Button, {"value": "previous_version"}, **small)
            self._place = gr.Markdown(elem_classes="place")
            self._on = labels.make(gr.Button, {"value": "next_version"}, **small)
            self._branch_button = labels.make(gr.Button, {"value": "branch"}, **small)
        self._versions = row
        self._around: Surroundings

    @property
    def outputs(self) -> list[Any]:
        """What handlers may change."""
        return [self.chatbot, self._earlier, self._versions, self._place, self._around.box]

    def wire(self, around: Surroundings) -> list[gr.events.Dependency]:
        """Connects the events of the pane itself; returns those that end with a new answer."""
        self._around = around
        head = [self.session, around.language]
        inputs = [*head, around.model, *around.settings]
        quick: dict[str, Any] = {**QUICK, "inputs": head, "outputs": self.outputs}
        around.box.stop(self._stop, self.session, None, **QUICK)
        self.chatbot.undo(self.undone, **quick)
        self._earlier.click(self._more, **quick)
        self.chatbot.select(self._selected, **quick)
        self._back.click(functools.partial(self._stepped, -1), **quick)
        self._on.click(functools.partial(self._stepped, 1), **quick)
        self._branch_button.click(self._branched, **quick)
        return [
            self.chatbot.edit(streaming(self._edited), inputs, self.outputs, **around.long),
            self.chatbot.retry(streaming(self._retried), inputs, self.outputs, **around.long),
        ]

    def wire_alone(self, around: Surroundings, again: gr.Button) -> list[gr.events.Dependency]:
        """As `wire`, for a pane with a box and a button to regenerate of its own."""
        answered = self.wire(around)
        inputs = [self.session, around.language, around.model, *around.settings]
        browser = around.browser if around.browser is not None else self.session
        sent, regenerated = streaming(self.sent), streaming(self.regenerated)
        return [
            *answered,
            around.box.submit(sent, [browser, around.box, *inputs], self.outputs, **around.long),
            again.click(regenerated, inputs, self.outputs, **around.long),
        ]

    def view(self, session: Session, language: str) -> Changes:
        """The conversation as it is, when no answer is being written."""
        changes = self._messages(session, language)
        if not self._desk.is_writing(session.visitor, session.box):
            changes[self._around.box] = gr.update(submit_btn=True, stop_btn=False)
        return changes | self._versions_view(session, language)

    def _messages(self, session: Session, language: str) -> Changes:
        first = first_shown(len(session.thread.path), session.earlier)
        return {
            self.chatbot: rendered(session.thread, language, session.earlier),
            self._earlier: gr.update(visible=first > 0),
        }

    def _versions_view(self, session: Session, language: str) -> Changes:
        ids = [message.id for message in session.thread.path]
        if not ids:
            return {self._versions: gr.update(visible=False)}
        at = session.selected if session.selected in ids else ids[-1]
        versions = [message.id for message in session.thread.versions(at)]
        place = say(language, "version", at=versions.index(at) + 1, of=len(versions))
        shown = len(versions) > 1 or at != ids[-1]
        return {self._versions: gr.update(visible=shown), self._place: place}

    async def sent(
        self,
        request: gr.Request,
        browser: Any,
        said: dict[str, Any] | None,
        session: Session,
        language: str,
        model: str | None,
        *settings: Any,
    ) -> Growing:
        """Takes a message from the box; the changes are the answer growing, or why not."""
        try:
            typed = await self.taken(request, browser, said, session, language, model)
        except FastChatError as error:
            return self.refused(str(error))
        return self.answered(typed, session, language, model, settings)

    async def taken(
        self,
        request: gr.Request,
        browser: Any,
        said: dict[str, Any] | None,
        session: Session,
        language: str,
        model: str | None,
    ) -> Typed:
        """What the box holds, if it may be asked.

        Raises:
            RequestError: why not.
        """
        keeps = self._around.browser is not None
        greet(self._desk, session, request, browser if keeps else None)
        given = said or {}
        return await checked(
            self._desk,
            session,
            language,
            model,
            given.get("text") or "",
            given.get("files") or [],
            most_characters=self._most_characters,
        )

    def answered(
        self,
        typed: Typed,
        session: Session,
        language: str,
        model: str | None,
        settings: Sequence[Any],
    ) -> Growing:
        """Asks what was taken from the box; the changes are the answer growing."""
        if typed.remark:
            gr.Info(typed.remark)
        self._put(session, typed.text, session.thread.leaf)
        return self._answers(session, language, model, settings, typed=True)

    async def _edited(
        self,
        request: gr.Request,
        data: gr.EditData,
        session: Session,
        language: str,
        model: str | None,
        *settings: Any,
    ) -> Growing:
        greet(self._desk, session, request)
        path, place = session.thread.path, _place(session, data.index)
        try:
            check_may_ask(self._desk, session, language, model)
            if place >= len(path) or not written(str(data.value)).strip():
                raise RequestError(say(language, "nothing_said"))
        except FastChatError as error:
            return self.refused(str(error), self.view(session, language))
        self._put(session, written(str(data.value)), path[place].parent)
        return self._answers(session, language, model, settings)

    async def _retried(
        self,
        request: gr.Request,
        data: gr.RetryData,
        session: Session,
        language: str,
        model: str | None,
        *settings: Any,
    ) -> Growing:
        path = session.thread.path[: _place(session, data.index) + 1]
        return self._again(request, path, session, language, model, settings)

    async def regenerated(
        self,
        request: gr.Request,
        session: Session,
        language: str,
        model: str | None,
        *settings: Any,
    ) -> Growing:
        """Answers the last question again."""
        return self._again(request, session.thread.path, session, language, model, settings)

    def _again(
        self,
        request: gr.Request,
        path: Sequence[Message],
        session: Session,
        language: str,
        model: str | None,
        settings: Sequence[Any],
    ) -> Growing:
        greet(self._desk, session, request)
        asked = [message.id for message in path if message.role == "user"]
        try:
            check_may_ask(self._desk, session, language, model, more_turns=0)
            if not asked:
                raise RequestError(say(language, "nothing_said"))
        except FastChatError as error:
            return self.refused(str(error))
        session.thread.go_to(asked[-1])
        return self._answers(session, language, model, settings)

    def _put(self, session: Session, text: str, parent: str | None) -> None:
        if not session.thread.id:
            session.thread.id, session.thread.created = new_id(), self._desk.now()
        self._desk.put_question(session, text, parent)

    async def refused(self, why: str, view: Changes | None = None) -> Growing:
        """Tells why there is no answer; what is in the box stays."""
        gr.Warning(why)
        yield view or {self._place: gr.skip()}

    async def _answers(
        self,
        session: Session,
        language: str,
        model: str | None,
        settings: Sequence[Any],
        *,
        typed: bool = False,
    ) -> Growing:
        session.thread.system = system_of(settings)
        session.thread.model = model or ""
        box: dict[str, Any] = {"value": {"text": "", "files": []}} if typed else {}
        change: Changes = {
            self._versions: gr.update(visible=False),
            self._around.box: gr.update(**box, submit_btn=False, stop_btn=True),
        }
        async with aclosing(self._desk.answer(session, sampling_of(settings))) as growing:
            async for _ in growing:
                yield {**self._messages(session, language), **change}
                change = {}
        yield self.view(session, language)

    async def _stop(self, session: Session) -> None:
        self._desk.stop(session)

    async def _more(self, session: Session, language: str) -> Changes:
        session.earlier += 2 * STEP
        return self._messages(session, language)

    async def undone(self, session: Session, language: str) -> Changes:
        """Goes back to before the last question."""
        if not session.answering:
            session.thread.take_back()
            session.selected = None
            self._desk.save(session, [])
        return self.view(session, language)

    async def _selected(self, data: gr.SelectData, session: Session, language: str) -> Changes:
        path, place = session.thread.path, _place(session, data.index)
        if session.answering or place >= len(path):
            return {self._place: gr.skip()}
        session.selected = path[place].id
        return self._versions_view(session, language)

    async def _stepped(self, by: int, session: Session, language: str) -> Changes:
        path = session.thread.path
        if session.answering or not path:
            return {self._place: gr.skip()}
        at = session.selected or path[-1].id
        versions = [message.id for message in session.thread.versions(at)]
        there = versions.index(at) + by
        if 0 <= there < len(versions):
            session.thread.step(at, by)
            session.selected = versions[there]
            self._desk.save(session, [])
        return self.view(session, language)

    async def _branched(self, session: Session, language: str) -> Changes:
        if not session.answering and session.selected is not None:
            message = session.thread[session.selected]
            session.thread.go_to(message.id if message.role == "assistant" else message.parent)
            session.selected = None
            self._desk.save(session, [])
        return self.view(session, language)


def _place(session: Session, index: int | tuple[int, int]) -> int:
    """Where in the path a message is that the page shows at an index."""
    shown = index if isinstance(index, int) else index[0]
    return shown + first_shown(len(session.thread.path), session.earlier)
