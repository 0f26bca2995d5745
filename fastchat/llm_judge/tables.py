"""Results as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastchat.llm_judge.scores import Scored


def score_table(results: Sequence[Scored]) -> str:
    """Scores by turn and in all."""
    turns = sorted({turn for each in results for turn in each.by_turn})
    head = ["model", *(f"turn {turn}" for turn in turns), "score", "95 % interval", "n", "unparsed"]
    rows = [
        [
            each.model,
            *(_number(each.by_turn.get(turn)) for turn in turns),
            _number(each.value),
            _interval(each, 1.0, 2),
            str(each.counted),
            str(each.unparsed),
        ]
        for each in results
    ]
    return aligned([head, *rows])


def win_table(results: Sequence[Scored]) -> str:
    """Comparisons won, lost and tied; the rate counts a tie as half a win."""
    head = ["model", "win", "loss", "tie", "win rate", "95 % interval", "unparsed"]
    rows = [
        [
            each.model,
            str(each.wins),
            str(each.losses),
            str(each.ties),
            _percent(each.value),
            _interval(each, 100.0, 0),
            str(each.unparsed),
        ]
        for each in results
    ]
    return aligned([head, *rows])


def category_table(results: Mapping[str, Sequence[Scored]], *, rates: bool) -> str:
    """Each model's value in each category; models in the order in which they come first."""
    models = list(dict.fromkeys(each.model for of in results.values() for each in of))
    rows = [["category", *models]]
    for category, of in results.items():
        values = {each.model: each.value for each in of}
        show = _percent if rates else _number
        rows.append([category, *(show(values.get(model)) for model in models)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _interval(of: Scored, scale: float, digits: int) -> str:
    if of.low is None or of.high is None:
        return "-"
    return f"{of.low * scale:.{digits}f} to {of.high * scale:.{digits}f}"
