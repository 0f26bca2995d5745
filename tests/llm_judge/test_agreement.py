"""How far judges agree: FastChat's vote files and this project's pair judgments."""

from __future__ import annotations

import json

import pytest

from fastchat.errors import DataError
from fastchat.llm_judge import compute_agreement
from tests.llm_judge.conftest import write_lines
from tests.llm_judge.test_scores import duel


def vote(question_id, judge, winner, models=("a", "b"), turn=1):
    return {
        "question_id": question_id,
        "model_a": models[0],
        "model_b": models[1],
        "winner": winner,
        "judge": judge,
        "turn": turn,
    }


@pytest.fixture
def votes(tmp_path):
    people = [
        vote(1, "expert_1", "model_a"),
        vote(1, "expert_2", "model_b", models=("b", "a")),
        vote(2, "expert_1", "tie"),
        vote(3, "expert_1", "model_b"),
        vote(3, "author_4", "model_b"),
        vote(1, "expert_1", "tie (inconsistent)", turn=2),
    ]
    (tmp_path / "human.json").write_text(json.dumps(people))
    judge = {"judge": ["gpt-4", "pair-v2"]}
    write_lines(
        tmp_path / "gpt-4_pair.jsonl",
        [
            duel(1, "model_2", "model_2") | judge,
            duel(1, "model_1", "model_1") | judge,  # asked again
            duel(2, "model_1", "model_2") | judge,
            duel(3, "model_1", "model_1") | judge,
            duel(1, "error", "tie", turn=2) | judge,
        ],
    )
    return ["--votefiles", str(tmp_path / "human.json"), str(tmp_path / "gpt-4_pair.jsonl")]


def test_a_model_and_people(votes, capsys):
    compute_agreement.main(votes)
    assert capsys.readouterr().out.splitlines() == [
        "turn 1 with tie. #total: 4, #agree: 3, ratio: 0.75",
        "turn 1 without tie. #total: 3, #agree: 2, ratio: 0.67",
        "turn 2 with tie. #total: 0, #agree: 0, ratio: -",
        "turn 2 without tie. #total: 0, #agree: 0, ratio: -",
    ]


def test_people_among_themselves(votes, capsys):
    compute_agreement.main(["--judges", "human", "human", *votes])
    assert "turn 1 with tie. #total: 1, #agree: 1, ratio: 1.00" in capsys.readouterr().out


def test_a_judge_who_has_not_voted(votes):
    with pytest.raises(DataError, match="author, gpt4-pair, human"):
        compute_agreement.main(["--judges", "gpt4-pair", "nobody", *votes])


def test_what_is_no_vote(tmp_path):
    (tmp_path / "x.json").write_text('[{"question_id": 7}]')
    with pytest.raises(DataError, match="question 7"):
        compute_agreement.main(["--votefiles", str(tmp_path / "x.json")])
