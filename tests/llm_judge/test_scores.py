"""From judgments to results: what counts, what does not, and how sure it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.errors import DataError, SettingsError
from fastchat.llm_judge import show_result
from fastchat.llm_judge.scores import interval, pair_points, scored, single_points
from tests.llm_judge.conftest import write_lines


def mark(question_id, model, turn, score):
    return {"question_id": question_id, "model": model, "turn": turn, "score": score}


def duel(question_id, first, second, turn=1, models=("a", "b")):
    return {
        "question_id": question_id,
        "model_1": models[0],
        "model_2": models[1],
        "turn": turn,
        "g1_winner": first,
        "g2_winner": second,
    }


def test_scores_by_turn_and_in_all():
    records = [mark(1, "a", 1, 8), mark(1, "a", 2, 4), mark(2, "a", 1, -1), mark(1, "b", 1, 9)]
    records += [mark(2, "a", 1, 6)]  # asked again: the last one counts
    best, other = scored(single_points(records))
    assert (best.model, best.value, best.unparsed) == ("b", 9, 0)
    assert (other.by_turn, other.value, other.counted) == ({1: 7, 2: 4}, 6, 3)


def test_a_model_of_which_nothing_could_be_read_comes_last():
    records = [mark(1, "a", 1, -1), mark(1, "b", 1, 1), mark(2, "c", 1, None)]
    rows = scored(single_points(records))
    assert [(each.model, each.value, each.unparsed) for each in rows] == [
        ("b", 1, 0),
        ("a", None, 1),
        ("c", None, 1),
    ]


def test_disagreement_is_a_tie_and_an_unread_verdict_is_nothing():
    records = [
        duel(1, "model_1", "model_1"),
        duel(2, "model_1", "model_2"),
        duel(3, "model_2", "tie"),
        duel(4, "error", "model_1"),
        duel(5, "model_2", "model_2", models=("b", "a")),
    ]
    first, second = scored(pair_points(records))
    assert (first.model, first.wins, first.losses, first.ties, first.unparsed) == ("a", 2, 0, 2, 1)
    assert (second.model, second.wins, second.losses, second.ties) == ("b", 0, 2, 2)
    assert first.value == 0.75


def test_only_comparisons_with_the_baseline():
    records = [duel(1, "model_1", "model_1"), duel(1, "tie", "tie", models=("a", "c"))]
    assert {point.model for point in pair_points(records, "c")} == {"a", "c"}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 2), st.integers(0, 10)), min_size=1),
    st.integers(0, 9),
)
def test_an_interval_holds_the_mean_and_does_not_depend_on_the_order(marks, seed):
    records = [mark(question, "a", turn, score) for question, turn, score in marks]
    points = single_points(records)
    (row,) = scored(points)
    assert min(point.value for point in points) <= row.low <= row.high
    assert row.high <= max(point.value for point in points)
    if len({point.question_id for point in points}) == 1:
        assert row.low == pytest.approx(row.value)
    shuffled = random.Random(seed).sample(points, len(points))
    assert scored(shuffled)[0].value == pytest.approx(row.value)


def test_more_questions_make_an_interval_narrower():
    def width(count):
        points = single_points(mark(number, "a", 1, 10 * (number % 2)) for number in range(count))
        low, high = interval(points, rounds=500, seed=0)
        return high - low

    assert width(400) < width(100) < width(25)


def test_turns_of_a_question_are_no_independent_evidence():
    together = [mark(n, "a", turn, 10 * (n % 2)) for n in range(20) for turn in (1, 2)]
    once = [mark(n, "a", 1, 10 * (n % 2)) for n in range(20)]
    of = [interval(single_points(records), rounds=500, seed=0) for records in (together, once)]
    assert of[0] == of[1]


def test_tables(workplace, capsys):
    folder = workplace / "data/mt_bench/model_judgment"
    write_lines(folder / "j_single.jsonl", [mark(81, "a", 1, 8), mark(82, "bb", 1, -1)])
    show_result.main(["--judge-model", "j", "--by-category"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["model", "turn", "1", "score"]
    assert lines[3].split() == ["a", "8.00", "8.00", "8.00", "to", "8.00", "1", "0"]
    assert lines[4].split() == ["bb", "-", "-", "-", "0", "1"]
    assert "writing" in lines[7]
    show_result.main(["--judge-model", "j", "--model-list", "a", "--json"])
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(DataError, match="models are a, bb"):
        show_result.main(["--judge-model", "j", "--model-list", "c"])
    with pytest.raises(SettingsError, match=r"j_single\.jsonl"):
        show_result.main(["--judge-model", "nobody"])
    file = str(folder / "j_single.jsonl")
    with pytest.raises(DataError, match="--mode"):
        show_result.main(["--mode", "pairwise-all", "--input-file", file])
