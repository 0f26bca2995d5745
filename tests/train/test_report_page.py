"""The report: what is drawn, what is shown, and that nothing in it is taken for markup."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.train.report.chart import Line, histogram, line_chart, nice_ticks
from fastchat.train.report.figures import axis_labels, count, duration, percent, short
from fastchat.train.report.page import RunFacts, page
from fastchat.train.report.picture import can_draw, loss_picture
from fastchat.train.report.samples import SampleAnswers
from fastchat.train.report.series import highlights, series, smooth, thin
from fastchat.train.report.writing import write_report

HISTORY: list[dict[str, Any]] = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-5, "grad_norm": 2.0, "tokens_per_second": 90.0},
    {"step": 2, "loss": math.nan, "learning_rate": 2e-5, "grad_norm": math.inf},
    {"step": 3, "loss": 1.5, "learning_rate": 1e-5, "grad_norm": 1.0, "tokens_per_second": 110.0},
    {"step": 3, "eval_loss": 1.8},
    {"step": 4, "eval_loss": 1.75, "loss": 1.4, "mfu": 0.4},
    {"step": 4, "train_runtime": 3725.2},
]

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)
points = st.lists(st.tuples(st.integers(0, 10**6).map(float), numbers), max_size=200).map(sorted)


class Tags(HTMLParser):
    """Checks that tags close as they opened, and collects what a page would fetch or run."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "style")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.partition("</style>")[2]))


def test_a_series_is_what_was_logged_and_finite() -> None:
    assert series(HISTORY, "loss") == [(1, 3), (3, 1.5), (4, 1.4)]
    assert series(HISTORY, "eval_loss") == [(3, 1.8), (4, 1.75)]
    assert series(HISTORY, "nothing") == []
    assert series([{"step": 1, "loss": "high"}, {"step": 2, "loss": None}], "loss") == []


def test_of_two_values_at_a_step_the_earlier_one_counts() -> None:
    assert series([{"step": 1, "loss": 1.0}, {"step": 1, "loss": 2.0}], "loss") == [(1, 1)]


@given(points, st.integers(1, 40))
def test_a_smoothed_series_stays_among_its_values(line: Any, span: int) -> None:
    smoothed = smooth(line, span)
    assert [step for step, _ in smoothed] == [step for step, _ in line]
    if line:
        low, high = min(v for _, v in line), max(v for _, v in line)
        slack = 1e-6 * max(1, abs(low), abs(high))
        assert all(low - slack <= value <= high + slack for _, value in smoothed)
    assert span > 1 or smoothed == line


@given(points, st.integers(2, 50))
def test_a_thinned_series_keeps_its_extremes_and_order(line: Any, most: int) -> None:
    thinned = thin(line, most)
    assert len(thinned) <= max(most, 2)
    assert set(thinned) <= set(line)
    assert thinned == sorted(thinned)
    if line:
        for pick in (min, max):
            assert pick(v for _, v in thinned) == pick(v for _, v in line)


@given(numbers, numbers, st.integers(2, 30))
def test_ticks_enclose_a_range_at_equal_distances(a: float, b: float, about: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, about)
    assert 2 <= len(ticks) <= about + 3
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert ticks[0] <= low + slack
    assert high - slack <= ticks[-1]


@given(points.filter(bool))
def test_any_line_makes_a_chart_inside_its_frame(line: Any) -> None:
    root = ET.fromstring(line_chart("a < b", [Line("x", line, "first")]))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    (drawn,) = root.iter("polyline")
    places = [tuple(map(float, place.split(","))) for place in drawn.attrib["points"].split()]
    assert len(places) == len(line)
    assert all(0 <= x <= width and -0.1 <= y <= height for x, y in places)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=200))
def test_a_histogram_counts_every_value(values: list[int]) -> None:
    root = ET.fromstring(histogram("lengths", values))
    titles = [title.text or "" for title in root.iter("title")]
    assert sum(int(title.partition(": ")[2].replace("\u202f", "")) for title in titles) == len(
        values
    )


def test_figures_as_people_read_them() -> None:
    assert [short(x) for x in (0, 12, 1.23456, 0.000123456, 2e-5, 999.96, 12345, 1.25e6)] == [
        "0", "12", "1.235", "0.000123", "2e-05", "1k", "12.3k", "1.25M",
    ]  # fmt: skip
    assert short(math.nan) == "nan"
    assert [percent(x) for x in (0, 0.0123, 0.654, 1)] == ["0%", "1.2%", "65%", "100%"]
    assert [duration(x) for x in (-1, 7, 723, 94244)] == ["0:00", "0:07", "12:03", "26:10:44"]
    assert count(1234567) == "1\u202f234\u202f567"


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 200, 400], ["0", "200", "400"]),
        ([800, 1000, 1200], ["800", "1000", "1200"]),
        ([0, 5000, 10000], ["0", "5k", "10k"]),
        ([100000, 100200], ["100.0k", "100.2k"]),
        ([-0.5, 0, 0.5], ["-0.5", "0", "0.5"]),
        ([0, 5e-6, 1e-5], ["0", "5e-06", "1e-05"]),
        ([7], ["7"]),
        ([], []),
    ],
)
def test_labels_of_an_axis_can_be_told_apart(ticks: list[float], labels: list[str]) -> None:
    assert axis_labels(ticks) == labels


def test_a_run_in_a_few_figures() -> None:
    assert highlights(HISTORY) == [
        ("loss at the end", "1.4"),
        ("best evaluation loss, step 4", "1.75"),
        ("steps", "4"),
        ("time", "1:02:05"),
        ("tokens a second", "100"),
        ("MFU", "40%"),
    ]
    assert highlights([]) == [("steps", "0")]


def test_a_page_shows_all_there_is_and_fetches_nothing() -> None:
    html = page(
        HISTORY,
        RunFacts(
            model="Yuan2-2B",
            settings={"learning_rate": 2e-5, "deepspeed": {"stage": 2}, "layers": ["a", "b"]},
            counts={"learned_tokens": 4060000},
            eval_counts={"rows": 17},
            row_lengths=[40, 41, 600],
            samples=[SampleAnswers("1+1?", "2", "5", "two")],
            notes=["--tf32 has no effect."],
        ),
    )
    tags = Tags(html)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & tags.seen
    assert tags.links == []
    assert "url(" not in html
    assert html.count("<svg") == 5
    shown = text_of(html)
    for text in (
        *("Yuan2-2B", "Loss", "Learning rate", "Gradient norm", "Tokens a second"),
        *("Lengths in tokens", "3 rows: mean 227, median 41, longest 600"),
        *("learned tokens", "4 060 000", "17", "a, b", "--tf32 has no effect."),
        *("1+1?", "Before 5", "After two", "In the data 2"),
    ):
        assert text in shown
    assert "prefers-color-scheme: dark" in html


def test_a_page_of_a_run_that_logged_nothing() -> None:
    html = page([], RunFacts(model="m"))
    assert Tags(html).open == []
    assert "<svg" not in html


def test_an_answer_from_before_may_be_missing() -> None:
    html = page([], RunFacts(model="m", samples=[SampleAnswers("q", "r", None, "a")]))
    assert "Before" not in text_of(html).partition("Question")[2]


@given(st.text())
def test_nothing_is_taken_for_markup(text: str) -> None:
    evil = f'</div><script>alert(1)</script><b onclick="x">"\'&{text}'
    html = page(
        HISTORY,
        RunFacts(
            model=evil,
            settings={evil: evil, "map": {evil: [evil]}},
            counts={evil: 1},
            row_lengths=[1],
            samples=[SampleAnswers(evil, evil, evil, evil)],
            notes=[evil],
        ),
    )
    tags = Tags(html)
    assert tags.open == []
    assert "<script" not in html


def test_what_is_secret_is_not_shown() -> None:
    html = page([], RunFacts(model="m", settings={"hub_token": "hf_abc", "save_steps": 5.0}))
    assert "hf_abc" not in html
    assert "(not shown)" in html


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    written = write_report(tmp_path, HISTORY, RunFacts(model="half a pair \ud800"))
    assert written[0] == tmp_path / "report.html"
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert "half a pair" in written[0].read_text(encoding="utf-8")
    assert len(written) == (2 if can_draw() else 1)


def test_the_loss_as_a_picture() -> None:
    pytest.importorskip("matplotlib")
    many = [{"step": step, "loss": 1 / step} for step in range(1, 2000)]
    for history in (HISTORY, many, [{"step": 1, "eval_loss": 1.0}]):
        picture = loss_picture(history)
        assert picture is not None
        assert picture.startswith(b"\x89PNG")
    assert loss_picture([{"step": 1, "train_runtime": 3.0}]) is None
