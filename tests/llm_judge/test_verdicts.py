"""What is read out of what judges write, also of those who write anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.llm_judge.judge_prompts import LETTER, TWO_RATINGS
from fastchat.llm_judge.verdicts import UNPARSED, rating, winner


@pytest.mark.parametrize(
    ("judgment", "score"),
    [
        ("Fine. Rating: [[7]]", 7.0),
        ("Rating: [[8.5]]", 8.5),
        ("Rating: [6]", 6.0),
        ("[9] is a footnote. Rating: [[2]]", 2.0),
        ("The answer demands [[10]], which is no merit. Rating: [[3]]", 3.0),
        ("Rating: [[ 4 ]]", 4.0),
        ("Rating: [[0]]", 0.0),
        ("Rating: [[11]]", UNPARSED),
        ("Rating: [[-3]]", UNPARSED),
        ("Rating: [[1e3]]", UNPARSED),
        ("Rating: [[7/10]]", UNPARSED),
        ("Rating: 7", UNPARSED),
        ("see [2023] ... Rating: [5]", 5.0),
        ("[[rating]]", UNPARSED),
        ("", UNPARSED),
        ("评分：[[8]]", 8.0),
        ("[" * 50_000 + "9", UNPARSED),
    ],
)
def test_ratings(judgment, score):
    assert rating(judgment) == score


@pytest.mark.parametrize(
    ("judgment", "output_format", "side"),
    [
        ("[[A]]", LETTER, "A"),
        ("A asks for [[A]], but: [[B]]", LETTER, "B"),
        ("[[C]]", LETTER, "tie"),
        ("[A]", LETTER, "error"),
        ("[[D]] [[a]]", LETTER, "error"),
        ("", LETTER, "error"),
        ("[[7,3]]", TWO_RATINGS, "A"),
        ("[[3, 7.5]]", TWO_RATINGS, "B"),
        ("[[7,7.1]]", TWO_RATINGS, "tie"),
        ("[[7,7.2]]", TWO_RATINGS, "B"),
        ("[7,3]", TWO_RATINGS, "A"),
        ("[1,9] then [[9,1]]", TWO_RATINGS, "A"),
        ("[[7]]", TWO_RATINGS, "error"),
    ],
)
def test_winners(judgment, output_format, side):
    assert winner(judgment, output_format) == side


@given(st.text(alphabet="[]ABC0123456789., -\n", max_size=60))
def test_any_text_has_a_verdict_of_the_known_kinds(text):
    assert rating(text) == UNPARSED or 0 <= rating(text) <= 10
    assert winner(text, LETTER) in ("A", "B", "tie", "error")
    assert winner(text, TWO_RATINGS) in ("A", "B", "tie", "error")
