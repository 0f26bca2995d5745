"""The page that shows questions, answers and judgments.

Imports Gradio, so it is imported after the entry point has parsed its flags. Loads nothing from
other hosts, whatever an answer holds: the browser is told so.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.errors import FastChatError
from fastchat.llm_judge.browsing import ALL, Library, TurnView
from fastchat.llm_judge.questions import Question
from fastchat.shown_text import shown

TURNS = 2
NOBODY = "none"
_OPTIONS: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "queue": False,
}
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:;"
    " worker-src 'self' blob:"
)
_CSS = """
.gradio-container { max-width: 1500px !important; }
footer { display: none !important; }
.block.said { border: 1px solid var(--border-color-primary); border-radius: 6px; }
.block.said, .block.asked { overflow-wrap: anywhere; }
.block.asked { border-left: 3px solid var(--color-accent); }
"""


def create_browser(library: Library) -> FastAPI:
    """The application that serves the page."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_OnlyFromHere)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        _Browser(library).blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        theme=gr.themes.Default(
            primary_hue="blue",
            font=["system-ui", "Noto Sans CJK SC", "Microsoft YaHei", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css=_CSS,
        allowed_paths=[],
        enable_monitoring=False,
    )
    return mounted


class _OnlyFromHere:
    """Has browsers refuse what an answer would load from elsewhere, a picture for instance."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
            await send(message)

        await self._app(scope, receive, sending)


class _Browser:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._turns: list[list[Any]] = []
        with gr.Blocks(
            title="FastChat-Yuan2: answers", fill_width=True, analytics_enabled=False
        ) as self.blocks:
            gr.Markdown(f"# {library.bench.name}: questions and answers")
            with gr.Row():
                self._category = gr.Dropdown([ALL], value=ALL, label="Category", elem_id="category")
                self._question = gr.Dropdown([], label="Question", elem_id="question", scale=3)
            with gr.Row():
                self._models = [
                    gr.Dropdown([], label=f"Model {letter}", elem_id=f"model-{letter.lower()}")
                    for letter in "AB"
                ]
                self._judge = gr.Dropdown([], label="Judge", elem_id="judge")
            with gr.Row():
                back = gr.Button("Previous question", elem_id="previous")
                forth = gr.Button("Next question", elem_id="next")
            for turn in range(1, TURNS + 1):
                self._turns.append(self._turn(turn))
            self._wire(back, forth)

    def _turn(self, turn: int) -> list[Any]:
        """The components of a turn, in the order of `_shown`."""
        with gr.Column(elem_id=f"turn-{turn}", visible=False) as group:
            asked = gr.Markdown(elem_classes="asked", padding=True)
            with gr.Row():
                said = [gr.Markdown(elem_classes="said", padding=True) for _ in self._models]
            verdict = gr.Markdown(padding=True, elem_classes="verdict")
            with gr.Accordion("Reference answer", open=False) as folded:
                reference = gr.Markdown(padding=True)
            with gr.Accordion("What the judge said", open=False) as judged:
                judgments = gr.Markdown(padding=True)
        return [group, asked, *said, verdict, folded, reference, judged, judgments]

    def _wire(self, back: Any, forth: Any) -> None:
        chosen = [self._question, *self._models, self._judge]
        turns = [component for turn in self._turns for component in turn]
        questions = [self._category, self._question]
        self.blocks.load(self._arrived, None, [self._category, *chosen], **_OPTIONS).then(
            self._show, chosen, turns, **_OPTIONS
        )
        self._category.input(self._narrowed, self._category, self._question, **_OPTIONS).then(
            self._show, chosen, turns, **_OPTIONS
        )
        for button, step in ((back, -1), (forth, 1)):
            button.click(
                lambda category, now, step=step: self._stepped(category, now, step),
                questions,
                self._question,
                **_OPTIONS,
            ).then(self._show, chosen, turns, **_OPTIONS)
        for component in chosen:
            component.input(self._show, chosen, turns, **_OPTIONS)

    def _arrived(self) -> list[Any]:
        library = self._library
        try:
            models, judges = library.bench.models(), library.judges()
            questions, categories = _choices(library.questions(ALL)), library.categories()
        except FastChatError as error:
            raise gr.Error(str(error)) from error
        first = models[0] if models else NOBODY
        second = models[1] if len(models) > 1 else NOBODY
        judge = judges[0] if judges else NOBODY
        return [
            gr.update(choices=categories, value=ALL),
            gr.update(choices=questions, value=questions[0][1]),
            gr.update(choices=[*models, NOBODY], value=first),
            gr.update(choices=[*models, NOBODY], value=second),
            gr.update(choices=[*judges, NOBODY], value=judge),
        ]

    def _narrowed(self, category: str) -> Any:
        questions = _choices(self._library.questions(category))
        return gr.update(choices=questions, value=questions[0][1])

    def _stepped(self, category: str, now: Any, step: int) -> Any:
        ids = [question.question_id for question in self._library.questions(category)]
        place = ids.index(now) if now in ids else 0
        return ids[(place + step) % len(ids)]

    def _show(self, question: Any, model_a: str, model_b: str, judge: str) -> list[Any]:
        models = [name for name in (model_a, model_b) if name and name != NOBODY]
        try:
            turns = self._library.view(question, models, None if judge == NOBODY else judge)
        except FastChatError as error:
            raise gr.Error(str(error)) from error
        found: list[Any] = []
        for place in range(TURNS):
            found += _shown(turns[place] if place < len(turns) else None, place + 1)
        return found


def _choices(questions: list[Question]) -> list[tuple[str, Any]]:
    return [
        (f"{each.question_id}: {' '.join(each.turns[0].split())[:90]}", each.question_id)
        for each in questions
    ]


def _shown(turn: TurnView | None, number: int) -> list[Any]:
    if turn is None:
        return [gr.update(visible=False), *[gr.update() for _ in range(8)]]
    texts = [
        f"**{shown(each.model)}**{_score(each.score)}\n\n{shown(each.text)}" for each in turn.said
    ]
    said = [gr.update(value=text, visible=True) for text in texts]
    said += [gr.update(value="", visible=False)] * (2 - len(said))
    judgments = [f"**{each.model}:** {each.judgment}" for each in turn.said if each.judgment]
    judgments += turn.judgments
    return [
        gr.update(visible=True),
        gr.update(value=f"**Turn {number}**\n\n{shown(turn.question)}"),
        *said,
        gr.update(value=f"**Better:** {shown(turn.verdict)}", visible=bool(turn.verdict)),
        gr.update(visible=bool(turn.reference)),
        gr.update(value=shown(turn.reference)),
        gr.update(visible=bool(judgments)),
        gr.update(value="\n\n---\n\n".join(map(shown, judgments))),
    ]


def _score(score: str) -> str:
    return f" · score {score}" if score else ""
