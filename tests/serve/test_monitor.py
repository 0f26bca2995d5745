"""Counts and battles from the logs of the web pages."""

from __future__ import annotations

import json

import pytest

from fastchat.errors import SettingsError
from fastchat.serve.monitor import basic_stats, clean_battle_data


def state(model, conv_id, turns=1):
    messages = [["user", "q"], ["assistant", "a"]] * turns
    return {"model_name": model, "conv_id": conv_id, "messages": messages, "offset": 0}


def vote(kind, one, two, number, **more):
    states = [state(one, f"{number}a", turns=2), state(two, f"{number}b", turns=2)]
    return {"tstamp": number, "type": kind, "models": ["", ""], "states": states, "ip": "1"} | more


LOG = [
    {"tstamp": 86_400 * 2, "type": "chat", "model": "a", "ip": "1"},
    {"tstamp": 86_400 * 2 + 5, "type": "chat", "model": "a", "ip": "2"},
    {"tstamp": 86_400 * 3, "type": "chat", "model": "b", "ip": "2"},
    {"tstamp": 5, "type": "upvote", "model": "a"},
    vote("leftvote", "a", "b", 1),
    vote("bothbad_vote", "a", "b", 3, ip="2", models=["a", "b"]),
    vote("tievote", "b", "c", 2),
    vote("tievote", "b", "c", 2),
    vote("rightvote", "a", "a", 4),
    vote("rightvote", "a", "x", 5),
    vote("rightvote", "a", "b", 6, ip="bad"),
    {"type": "rightvote", "states": [None]},
]


@pytest.fixture
def folder(tmp_path):
    lines = "\n".join(map(json.dumps, LOG))
    (tmp_path / "2026-01-02-conv.json").write_text(lines + '\n{"type": "ch')
    (tmp_path / "2026-01-01-conv.json").write_text("")
    return tmp_path


def test_chats_and_votes_are_counted(folder, capsys):
    basic_stats.main(["--log-dir", str(folder), "--max-num-files", "1"])
    told = capsys.readouterr().out
    for row in ("| 1970-01-03 | 2 |", "| a | 2 |", "| a | 1 | 0 | 0 |", "| chat | 3 |"):
        assert row in told


def test_votes_become_battles_and_those_that_do_not_count_are_told(folder, capsys):
    out, banned = folder / "battles.json", folder / "banned.json"
    banned.write_text('["bad"]')
    flags = ["--exclude-model-names", "x", "--ban-ip-file", str(banned), "--sanitize-ip"]
    clean_battle_data.main(["--log-dir", str(folder), "--out-file", str(out), *flags])
    battles = json.loads(out.read_text())
    assert [(b["model_a"], b["model_b"], b["winner"], b["judge"]) for b in battles] == [
        ("a", "b", "model_a", "arena_user_0"),
        ("b", "c", "tie", "arena_user_0"),
        ("a", "b", "tie (bothbad)", "arena_user_1"),
    ]
    assert [b["anony"] for b in battles] == [True, True, False]
    assert {b["turn"] for b in battles} == {2}
    told = capsys.readouterr()
    assert "3 battles" in told.out
    for reason in ("excluded model", "banned address", "voted before", "against itself", "not two"):
        assert reason in told.err


def test_chats_are_not_published(folder):
    with pytest.raises(SettingsError, match="conv_release"):
        clean_battle_data.main(["--log-dir", str(folder), "--mode", "conv_release"])
