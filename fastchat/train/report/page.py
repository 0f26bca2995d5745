"""report.html: a run on one page that needs nothing else, in light and in dark.

Everything that comes from data, flags or the model is escaped by the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fastchat.train.report.chart import Line, histogram, line_chart
from fastchat.train.report.figures import count
from fastchat.train.report.samples import SampleAnswers
from fastchat.train.report.series import History, highlights, series, smooth, thin

_TEMPLATE = "page.html"
_SECRET = ("token", "password", "secret", "api_key")
_SMOOTH_FROM = 20  # points; with fewer the line itself is plain enough


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What there is to say of a run beside its curves.

    Attributes:
        model: its name.
        settings: what the run was told, by flag.
        counts: what became of the training data, such as `RowStats.as_dict()`.
        eval_counts: the same of the evaluation data.
        row_lengths: tokens of each row or conversation that is learned.
        samples: answers before and after.
        notes: what the user should know, such as flags that had no effect.
    """

    model: str
    settings: Mapping[str, object] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    eval_counts: Mapping[str, int] = field(default_factory=dict)
    row_lengths: Sequence[int] = ()
    samples: Sequence[SampleAnswers] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Chart:
    """A chart, as SVG that is safe as it is, and its heading; `legend` holds (name, style)."""

    title: str
    picture: str
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    wide: bool = False


def page(history: History, facts: RunFacts) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        model=facts.model,
        highlights=highlights(history),
        charts=_charts(history, facts.row_lengths),
        samples=facts.samples,
        tables=[
            table
            for table in (
                ("Training data", _numbers(facts.counts)),
                ("Evaluation data", _numbers(facts.eval_counts)),
                ("Settings", _settings(facts.settings)),
            )
            if table[1]
        ],
        notes=facts.notes,
    )


def _charts(history: History, lengths: Sequence[int]) -> list[_Chart]:
    loss = _loss_chart(history)
    charts = [loss] if loss else []
    for title, name in (
        ("Learning rate", "learning_rate"),
        ("Gradient norm", "grad_norm"),
        ("Tokens a second", "tokens_per_second"),
    ):
        if points := series(history, name):
            line = Line(title, thin(points), "first")
            charts.append(_Chart(title, line_chart(title, [line])))
    if lengths:
        charts.append(_length_chart(lengths))
    return charts


def _loss_chart(history: History) -> _Chart | None:
    lines = []
    if losses := series(history, "loss"):
        if len(losses) >= _SMOOTH_FROM:
            lines.append(Line("", thin(losses), "first faint"))
            losses = smooth(losses, max(1, len(losses) // 30))
        lines.append(Line("training", thin(losses), "first"))
    if evaluations := series(history, "eval_loss"):
        lines.append(Line("evaluation", thin(evaluations), "second"))
    if not lines:
        return None
    picture = line_chart("Loss", lines, width=1000, height=300)
    legend = [(line.name, line.style) for line in lines if line.name]
    return _Chart("Loss", picture, legend, wide=True)


def _length_chart(lengths: Sequence[int]) -> _Chart:
    title = "Lengths in tokens"
    note = (
        f"{count(len(lengths))} rows: mean {fmean(lengths):.0f}, median {median(lengths):.0f},"
        f" longest {count(max(lengths))}"
    )
    return _Chart(title, histogram(title, lengths), note=note)


def _numbers(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), count(value)) for name, value in counts.items()]


def _settings(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name, _shown(name, value)) for name, value in sorted(settings.items())]


def _shown(name: str, value: object) -> str:
    if value and any(word in name for word in _SECRET) and isinstance(value, str):
        return "(not shown)"
    if isinstance(value, Mapping):
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
