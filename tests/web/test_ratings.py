"""Ratings against what can be worked out by hand, votes in logs, plots."""

from __future__ import annotations

import itertools
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.errors import DataError
from fastchat.serve.monitor import clean_battle_data, elo_analysis
from fastchat.serve.web.log import ConversationLog
from fastchat.serve.web.plots import ratings_plot, wins_plot
from fastchat.serve.web.ratings import (
    SCALE,
    START,
    Battle,
    bradley_terry,
    elo,
    models_of,
    ranked,
    wins_of,
)
from fastchat.serve.web.thread import Message, Thread
from fastchat.serve.web.votes import battles_of

BATTLES = st.lists(
    st.builds(
        Battle, st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from(["a", "b", "tie"])
    ),
    min_size=1,
    max_size=40,
)


def log_likelihood(strength, battles, models):
    """What the ratings are to maximise, written down battle by battle."""
    place = {name: at for at, name in enumerate(models)}
    total = sum(2 * 0.5 * -math.log(1 + math.exp(-r)) - r / 2 for r in strength)
    for battle in battles:
        gap = strength[place[battle.a]] - strength[place[battle.b]]
        score = {"a": 1.0, "b": 0.0, "tie": 0.5}[battle.winner]
        total += score * -math.log(1 + math.exp(-gap)) + (1 - score) * -math.log(1 + math.exp(gap))
    return total


@given(BATTLES)
def test_no_other_ratings_are_likelier(battles):
    battles = [battle for battle in battles if battle.a != battle.b]
    models = models_of(battles)
    if not models:
        return
    best = (bradley_terry(wins_of(battles, models)) - START) / SCALE
    top = log_likelihood(best, battles, models)
    for at, step in itertools.product(range(len(models)), (-1e-3, 1e-3)):
        moved = best.copy()
        moved[at] += step
        assert log_likelihood(moved, battles, models) < top


def test_the_generator_of_many_battles_is_found_again():
    rng = np.random.default_rng(0)
    truth = np.array([0.0, 0.5, -0.5, 1.2])
    battles = []
    for _ in range(8000):
        a, b = rng.choice(4, 2, replace=False)
        won = rng.random() < 1 / (1 + math.exp(truth[b] - truth[a]))
        battles.append(Battle("abcd"[a], "abcd"[b], "a" if won else "b"))
    found = (bradley_terry(wins_of(battles, list("abcd"))) - START) / SCALE
    assert np.allclose(found - found.mean(), truth - truth.mean(), atol=0.12)
    rated = ranked(battles)
    assert [each.model for each in rated] == ["d", "b", "a", "c"]
    for each in rated:
        assert each.low < each.rating < each.high
        assert each.high - each.low < 60


@given(BATTLES)
def test_a_board_holds_everyone_once_and_mirrors_when_sides_are_swapped(battles):
    swapped = [
        Battle(each.b, each.a, {"a": "b", "b": "a", "tie": "tie"}[each.winner]) for each in battles
    ]
    board, mirrored = ranked(battles, rounds=5), ranked(swapped, rounds=5)
    fought = [battle for battle in battles if battle.a != battle.b]
    assert sorted(each.model for each in board) == models_of(fought)
    assert sum(each.battles for each in board) == 2 * len(fought)
    for one, other in zip(
        sorted(board, key=lambda each: each.model),
        sorted(mirrored, key=lambda each: each.model),
        strict=True,
    ):
        assert one.rating == pytest.approx(other.rating)
        assert one.elo == pytest.approx(other.elo)
        assert math.isfinite(one.low)
        assert one.low <= one.rating <= one.high


def test_elo_is_updated_battle_by_battle():
    first = elo([Battle("x", "y", "a")], ["x", "y"])
    assert first.tolist() == [1002.0, 998.0]
    second = elo([Battle("x", "y", "a"), Battle("x", "y", "tie")], ["x", "y"])
    expected = 1 / (1 + 10 ** (-4 / 400))
    assert second[0] == pytest.approx(1002 + 4 * (0.5 - expected))
    assert second.sum() == pytest.approx(2000)


def talk(model):
    thread = Thread(f"t-{model}", model=model, system="s")
    thread.add(Message("q", None, "user", "你好"))
    thread.add(Message("a", "q", "assistant", "好"))
    return thread


def test_votes_that_were_logged_are_counted_once(tmp_path, capsys):
    log = ConversationLog(tmp_path, "none", lambda: 0.0)
    for kind, names in (
        ("leftvote", ["", ""]),
        ("bothbad_vote", ["", ""]),
        ("rightvote", ["x", "y"]),
    ):
        pair = [talk("x"), talk("y")]
        for thread in pair:
            thread.id += kind
        log.vote(kind, pair, names, "1.2.3.4")
        log.vote(kind, pair, names, "1.2.3.4")
        log.chat(pair[0], {}, 0.0, 1.0, "1.2.3.4")
    with (tmp_path / "1970-01-01-conv.json").open("a") as file:
        file.write('{"type": "leftvote", "states"')
    assert battles_of(tmp_path) == [Battle("x", "y", "a"), Battle("x", "y", "tie")]
    assert battles_of(tmp_path, named=True)[-1] == Battle("x", "y", "b")
    assert battles_of(None) == []

    cleaned = tmp_path / "battles.json"
    clean_battle_data.main(["--log-dir", str(tmp_path), "--out-file", str(cleaned)])
    capsys.readouterr()
    elo_analysis.main(["--clean-battle-file", str(cleaned), "--json"])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["model"]: each["battles"] for each in told} == {"x": 3, "y": 3}
    elo_analysis.main(
        ["--clean-battle-file", str(cleaned), "--exclude-tie", "--rating-system", "elo"]
    )
    assert capsys.readouterr().out.count("50%") == 2
    cleaned.write_text("{")
    with pytest.raises(DataError, match="no cleaned battles"):
        elo_analysis.main(["--clean-battle-file", str(cleaned)])


@pytest.mark.parametrize(("how", "expected"), [("full", "1.2.3.4"), ("none", ""), ("hash", None)])
def test_a_log_line_is_fastchats_and_tells_what_it_may_of_the_visitor(tmp_path, how, expected):
    log = ConversationLog(tmp_path, how, lambda: 86400.0)
    params = {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 9}
    log.chat(talk("x"), params, 1.0, 2.0, "1.2.3.4")
    log.verdict("upvote", talk("x"), "1.2.3.4")
    text = (tmp_path / "1970-01-02-conv.json").read_text(encoding="utf-8")
    chat, upvote = map(json.loads, text.splitlines())
    assert "你好" in text
    assert list(chat) == ["tstamp", "type", "model", "gen_params", "start", "finish", "state", "ip"]
    assert list(upvote) == ["tstamp", "type", "model", "state", "ip"]
    assert chat["state"] == {
        "template_name": "yuan2",
        "system_message": "s",
        "roles": ["user", "assistant"],
        "messages": [["user", "你好"], ["assistant", "好"]],
        "offset": 0,
        "conv_id": "t-x",
        "model_name": "x",
    }
    if expected is None:
        assert chat["ip"] == upvote["ip"] != "1.2.3.4"
        assert chat["ip"]
    else:
        assert chat["ip"] == expected


def test_plots_are_well_formed_and_name_every_model():
    battles = [Battle("<b>", "y", "a"), Battle("y", "z" * 40, "tie")]
    models = models_of(battles)
    for figure in (
        ratings_plot(ranked(battles), "T & t"),
        wins_plot(wins_of(battles, models), models, "T & t"),
    ):
        tree = ET.fromstring(figure)
        assert any((node.text or "").startswith("<b>") for node in tree.iter())
        assert tree[1].get("aria-label") == "T & t"
