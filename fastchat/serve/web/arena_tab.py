"""Two panes that answer the same messages: with names side by side, or blind as a battle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import gradio as gr

from fastchat.constants import BLIND_MODE_INPUT_CHAR_LEN_LIMIT, INPUT_CHAR_LEN_LIMIT
from fastchat.errors import FastChatError
from fastchat.serve.web.catalogue import Catalogue
from fastchat.serve.web.chat_tab import message_box
from fastchat.serve.web.controls import Controls
from fastchat.serve.web.desk import Desk, Session
from fastchat.serve.web.growing import Changes, Growing, merged, streaming
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import QUICK
from fastchat.serve.web.pane import Pane, Surroundings
from fastchat.serve.web.thread import Thread
from fastchat.serve.web.votes import KINDS
from fastchat.serve.web.words import say

CHOICES = tuple(KINDS)
SIDES = ("A", "B")


class ArenaTab:
    """A comparison. Its components are made where it is built.

    Args:
        desk, labels, catalogue: of the page.
        blind: whether the models are drawn and their names hidden until the vote.
    """

    def __init__(self, desk: Desk, labels: Labels, catalogue: Catalogue, *, blind: bool) -> None:
        self._desk = desk
        self._catalogue = catalogue
        self._blind = blind
        make, name = labels.make, "battle" if blind else "compare"
        if blind:
            make(gr.Markdown, {"value": "battle_intro"})
        most = BLIND_MODE_INPUT_CHAR_LEN_LIMIT if blind else INPUT_CHAR_LEN_LIMIT
        self._models: list[Any] = []
        self._panes: list[Pane] = []
        self._revealed: list[Any] = []
        with gr.Row():
            for side in SIDES:
                label = f"model_{side.lower()}"
                with gr.Column(min_width=300):
                    if blind:
                        self._models.append(gr.State(None))
                        make(gr.Markdown, {"value": label}, elem_classes="side")
                    else:
                        drop = make(
                            gr.Dropdown, {"label": label}, choices=[], elem_id=f"{name}-{side}"
                        )
                        self._models.append(drop)
                    self._panes.append(
                        Pane(
                            desk,
                            labels,
                            name=f"{name}-{side}",
                            most_characters=most,
                            label=label,
                            box=name,
                        )
                    )
                    self._revealed.append(gr.Markdown(elem_classes="revealed"))
        self._box = message_box(labels, name, files=False)
        small: dict[str, Any] = {"size": "sm", "min_width": 90}
        with gr.Row(elem_classes="acts"):
            self._votes = [
                make(gr.Button, {"value": choice}, interactive=False, **small) for choice in CHOICES
            ]
            self._regenerate = make(
                gr.Button, {"value": "regenerate"}, elem_classes="apart", **small
            )
            again = "new_round" if blind else "clear"
            self._anew = make(gr.Button, {"value": again}, elem_id=f"{name}-anew", **small)
        self._controls = Controls(labels)

    def wire(self, language: Any, concurrency: int) -> None:
        """Connects all events."""
        self._language = language
        sessions = self.sessions
        answered = []
        for at, pane in enumerate(self._panes):
            around = Surroundings(
                language,
                self._models[at],
                self._box,
                self._controls.inputs,
                concurrency,
            )
            answered += pane.wire(around)
        inputs = [*sessions, language, *self._models, *self._controls.inputs]
        outputs = list(dict.fromkeys(each for pane in self._panes for each in pane.outputs))
        answered += [
            self._box.submit(streaming(self._sent), [self._box, *inputs], outputs, **around.long),
            self._regenerate.click(streaming(self._again), inputs, outputs, **around.long),
        ]
        for each in answered:
            each.then(self._votable, sessions, self._votes, **QUICK)
        for button, choice in zip(self._votes, CHOICES, strict=True):
            button.click(
                self._voter(choice), [*sessions, language], [*self._votes, *self._revealed], **QUICK
            )
        self._anew.click(self._begin_anew, [*sessions, language], self.outputs, **QUICK)
        if not self._blind:
            for drop in self._models:
                drop.input(self._begin_anew, [*sessions, language], self.outputs, **QUICK)

    @property
    def outputs(self) -> list[Any]:
        """What `loaded` may change."""
        mine = [*self._models, *self._votes, *self._revealed]
        return list({*mine, *(each for pane in self._panes for each in pane.outputs)})

    @property
    def sessions(self) -> list[Any]:
        """The panes' states, which `loaded` reads."""
        return [pane.session for pane in self._panes]

    async def loaded(self, a: Session, b: Session, language: str) -> Changes:
        """A page was opened: its models."""
        names = await (self._catalogue.names() if self._blind else self._catalogue.open_names())
        if not self._blind:
            chosen: list[str | None] = [*(names * 2)[:2]] or [None, None]
            return {
                drop: gr.update(choices=names, value=value)
                for drop, value in zip(self._models, chosen, strict=True)
            }
        return await self._begin_anew(a, b, language)

    async def _sent(
        self,
        request: gr.Request,
        said: dict[str, Any] | None,
        a: Session,
        b: Session,
        language: str,
        model_a: str | None,
        model_b: str | None,
        *settings: Any,
    ) -> Growing:
        sides = list(zip(self._panes, (a, b), (model_a, model_b), strict=True))
        try:  # both or none: a message must not reach one side only
            typed = [
                await pane.taken(request, None, said, session, language, model)
                for pane, session, model in sides
            ]
        except FastChatError as error:
            return self._panes[0].refused(str(error))
        return merged(
            *(
                pane.answered(what, session, language, model, settings)
                for what, (pane, session, model) in zip(typed, sides, strict=True)
            )
        )

    async def _again(
        self,
        request: gr.Request,
        a: Session,
        b: Session,
        language: str,
        model_a: str | None,
        model_b: str | None,
        *settings: Any,
    ) -> Growing:
        left, right = self._panes
        if a.answering or b.answering:
            return left.refused(say(language, "answering"))
        return merged(
            await left.regenerated(request, a, language, model_a, *settings),
            await right.regenerated(request, b, language, model_b, *settings),
        )

    async def _begin_anew(self, a: Session, b: Session, language: str) -> Changes:
        changes: Changes = {}
        for pane, session in zip(self._panes, (a, b), strict=True):
            self._desk.stop(session)
            session.open(Thread(""))
            changes |= pane.view(session, language)
        changes |= dict.fromkeys(self._revealed, "")
        changes |= {button: gr.update(interactive=False) for button in self._votes}
        if self._blind:
            names = await self._catalogue.names()
            if len(names) < 2:
                changes[self._revealed[0]] = say(language, "two_models", count=len(names))
                drawn: Sequence[str | None] = (None, None)
            else:
                drawn = random.sample(names, 2)
            changes |= dict(zip(self._models, drawn, strict=True))
        return changes

    async def _votable(self, a: Session, b: Session) -> list[Any]:
        ready = all(_complete(session) for session in (a, b))
        return [gr.update(interactive=ready)] * len(CHOICES)

    def _voter(self, choice: str) -> Any:
        async def vote(a: Session, b: Session, language: str) -> list[Any]:
            threads = (a.thread, b.thread)
            names = ("", "") if self._blind else tuple(thread.model for thread in threads)
            if not all(_complete(session) for session in (a, b)):
                return [gr.skip()] * (len(CHOICES) + len(SIDES))
            self._desk.log.vote(KINDS[choice], threads, names, a.ip)
            gr.Info(say(language, "thanks"))
            told = [
                say(language, "was", side=side, model=thread.model)
                for side, thread in zip(SIDES, threads, strict=True)
            ]
            return [*[gr.update(interactive=False)] * len(CHOICES), *told]

        return vote


def _complete(session: Session) -> bool:
    path = session.thread.path
    return (
        not session.answering
        and bool(path)
        and path[-1].role == "assistant"
        and "error" not in path[-1].stats
    )
