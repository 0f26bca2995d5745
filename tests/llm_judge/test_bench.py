"""The packaged sets and prompts, and a user's own files in FastChat's format."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from fastchat.errors import DataError, SettingsError
from fastchat.llm_judge.bench import OWN_BENCH, Bench, default_bench, packaged
from fastchat.llm_judge.judge_prompts import (
    LETTER,
    RATING,
    fields_of,
    prompt_file,
    prompt_for,
    read_prompts,
)
from fastchat.llm_judge.questions import TEMPERATURES, Question, chosen, read_questions
from tests.llm_judge.conftest import store_answers, write_lines

SETS = ("yuan_bench", "yuan_bench_zh")


@pytest.mark.parametrize("name", SETS)
def test_the_packaged_sets_cover_the_eight_categories(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    questions = Bench(name).questions()
    counts = Counter(question.category for question in questions)
    categories = [*TEMPERATURES]
    assert counts == dict.fromkeys(categories, 3)
    assert all(len(question.turns) == 2 and all(question.turns) for question in questions)
    chinese = [bool(re.search("[一-鿿]", question.turns[0])) for question in questions]
    assert all(chinese) if name.endswith("zh") else not any(chinese)
    needed = {question.question_id for question in questions if question.needs_reference}
    assert set(Bench(name).references("any judge", questions)) == needed


def test_no_question_has_the_id_of_another():
    ids = [each.question_id for name in SETS for each in Bench(name).questions()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", ["single", "pairwise"])
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("category", ["math", "writing"])
def test_a_packaged_prompt_shows_all_that_it_has_to(kind, turn, category):
    prompts = read_prompts(packaged() / "judge_prompts.jsonl")
    question = Question(1, category, ("{Q1}", "Q2"), ("R1", "R2"))
    answers = [["A1", "A2"]] if kind == "single" else [["A1", "A2"], ["B1", "B2"]]
    prompt = prompt_for(prompts, kind, question, turn)
    assert prompt.output_format == (RATING if kind == "single" else LETTER)
    reference = question.reference if question.needs_reference else ()
    text = prompt.fill(fields_of(question, turn, answers, reference))
    expected = {"{Q1}", "A1"} | ({"B1"} if kind == "pairwise" else set())
    if turn == 2:
        expected |= {"Q2", "A2"} | ({"B2"} if kind == "pairwise" else set())
    if category == "math":
        expected |= {"R1", "R2"} if turn == 2 else {"R1"}
    shown = {word for word in ("{Q1}", "Q2", "A1", "A2", "B1", "B2", "R1", "R2") if word in text}
    assert shown == expected


def test_the_users_own_files_come_first(workplace):
    assert default_bench() == "mt_bench"
    assert [each.question_id for each in Bench("mt_bench").questions()] == [81, 82, 83]
    assert [each.temperature for each in Bench("mt_bench").questions()] == [0.7, 0.0, 0.3]
    own = workplace / "data" / "judge_prompts.jsonl"
    assert prompt_file(None) == packaged() / "judge_prompts.jsonl"
    own.touch()
    assert prompt_file(None).samefile(own)


def test_without_files_of_ones_own_the_packaged_set_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_bench() == OWN_BENCH
    with pytest.raises(SettingsError, match="yuan_bench_zh"):
        Bench("mt_bench").questions()


def test_references_are_the_judges_own_then_the_only_ones_then_the_questions(workplace):
    bench = Bench("mt_bench")
    questions = bench.questions()
    assert bench.references("j", questions) == {82: ["2", "4"]}
    store_answers("gpt-4", {82: ["two", "four"]})
    folder = workplace / "data" / "mt_bench"
    (folder / "model_answer").rename(folder / "reference_answer")
    assert bench.references("j", questions) == {82: ["two", "four"]}
    assert bench.references("gpt-4", questions) == {82: ["two", "four"]}
    store_answers("j", {82: ["II", "IV"]})
    (folder / "model_answer" / "j.jsonl").rename(folder / "reference_answer" / "j.jsonl")
    assert bench.references("j", questions) == {82: ["II", "IV"]}
    assert bench.references("third", questions) == {82: ["2", "4"]}
    bare = [Question(82, "math", ("1+1?", "2+2?"))]
    with pytest.raises(DataError, match="questions 82"):
        bench.references("third", bare)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"category": "x", "turns": ["a"]}, "question_id"),
        ({"question_id": 1, "turns": "a"}, "list of strings"),
        ({"question_id": 1, "turns": []}, "no turns"),
        ({"question_id": 1, "turns": ["a"], "required_temperature": "hot"}, "temperature"),
    ],
)
def test_a_faulty_question_is_named(tmp_path, record, fault):
    write_lines(tmp_path / "question.jsonl", [record])
    with pytest.raises(DataError, match=fault):
        read_questions(tmp_path / "question.jsonl")


def test_a_range_without_questions(workplace):
    with pytest.raises(SettingsError, match="--question-begin 9"):
        chosen(Bench("mt_bench").questions(), 9, None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"prompt_template": "{question} {nobody}"}, "nobody"),
        ({"prompt_template": "{question"}, "cannot be filled"),
        ({"output_format": "[[stars]]"}, "stars"),
        ({"type": "triple"}, "triple"),
        ({"system_prompt": None}, "system_prompt"),
    ],
)
def test_a_faulty_judge_prompt_is_named(tmp_path, change, fault):
    prompt = {
        "name": "single-v1",
        "type": "single",
        "system_prompt": "",
        "prompt_template": "{question} {answer}",
        "output_format": "[[rating]]",
    }
    write_lines(tmp_path / "prompts.jsonl", [prompt | change])
    question = Question(1, "writing", ("a",))
    fields = fields_of(question, 1, [["b"]], ())
    with pytest.raises(DataError, match=fault):
        read_prompts(tmp_path / "prompts.jsonl")["single-v1"].fill(fields)
