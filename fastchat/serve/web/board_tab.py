"""The leaderboard: ratings of the models, counted from the votes in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import PRIVATE
from fastchat.serve.web.plots import ratings_plot, wins_plot
from fastchat.serve.web.ratings import Battle, Rated, models_of, ranked, wins_of
from fastchat.serve.web.votes import battles_of
from fastchat.serve.web.words import say

_COLUMNS = ("rank", "model", "rating", "interval", "elo", "votes", "wins")


class BoardTab:
    """The leaderboard. Its components are made where it is built.

    Args:
        labels: makes components with texts.
        folder: of the logs; None shows an empty board.
    """

    def __init__(self, labels: Labels, folder: Path | None) -> None:
        self._folder = folder
        with gr.Row(elem_classes="acts"):
            named = {"label": "count_named"}
            self._named = labels.make(gr.Checkbox, named, value=False, container=False)
            self._refresh = labels.make(gr.Button, {"value": "refresh"}, size="sm")
        self._board = gr.HTML(elem_id="board")

    def wire(self, tab: gr.Tab, language: Any) -> None:
        """Counts whenever the tab is opened, and when asked to."""
        inputs, more = [language, self._named], {**PRIVATE, "concurrency_limit": 1}
        tab.select(self._counted, inputs, self._board, **more)
        self._refresh.click(self._counted, inputs, self._board, **more)
        self._named.change(self._counted, inputs, self._board, **more)

    async def _counted(self, language: str, named: bool) -> str:
        return await asyncio.to_thread(_board, self._folder, language, named)


def _board(folder: Path | None, language: str, named: bool) -> str:
    battles = battles_of(folder, named=named)
    rated = ranked(battles)
    return board_html(rated, battles, language)


def board_html(rated: Sequence[Rated], battles: Sequence[Battle], language: str) -> str:
    """The board: a table, and plots of the ratings and of who won against whom."""
    if not rated:
        return f"<p>{say(language, 'no_votes')}</p>"
    battles = [battle for battle in battles if battle.a != battle.b]
    models = [each.model for each in rated]
    assert sorted(models) == models_of(battles)
    counted = say(language, "counted", votes=len(battles), models=len(models))
    plots = ratings_plot(rated, say(language, "ratings_plot")) + wins_plot(
        wins_of(battles, models), models, say(language, "wins_plot")
    )
    return f"<p>{counted}</p>{_table(rated, language)}{plots}"


def _table(rated: Sequence[Rated], language: str) -> str:
    head = "".join(f'<th scope="col">{say(language, column)}</th>' for column in _COLUMNS)
    rows = "".join(
        f"<tr><td>{place}</td><td>{escape(each.model)}</td><td>{each.rating:.0f}</td>"
        f"<td>{each.low:.0f} – {each.high:.0f}</td><td>{each.elo:.0f}</td>"
        f"<td>{each.battles}</td><td>{each.score:.0%}</td></tr>"
        for place, each in enumerate(rated, start=1)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll">{table}</div>'
