"""A real judge behind real HTTP: what is asked, what is stored, what happens when it fails."""

from __future__ import annotations

import io
import json
import re

import pytest

from fastchat.engine.echo import Script
from fastchat.errors import DataError, SettingsError, UnknownModelError
from fastchat.llm_judge import gen_judgment, show_result
from fastchat.llm_judge.asking import INCOMPLETE
from tests.llm_judge.conftest import answers_of, judging_flags, read_lines, status_of, write_lines

SINGLE = "data/mt_bench/model_judgment/echo_single.jsonl"
PAIR = "data/mt_bench/model_judgment/echo_pair.jsonl"


def run(stack, *flags):
    return status_of(gen_judgment.main, judging_flags(stack, "--yes", *flags))


def test_single_answers_are_marked_turn_by_turn(workplace, make_judge):
    answers_of("good")
    stack = make_judge(lambda prompt: "Rating: [[8]]" if "second" in prompt else "no idea")
    assert run(stack, "--parallel", "3") == 0
    records = {(each["question_id"], each["turn"]): each for each in read_lines(SINGLE)}
    assert set(records) == {(81, 1), (81, 2), (82, 1), (82, 2), (83, 1)}
    assert {key: each["score"] for key, each in records.items()} == {
        (81, 1): -1,
        (81, 2): 8,
        (82, 1): -1,
        (82, 2): 8,
        (83, 1): -1,
    }
    assert records[81, 1]["judge"] == ["echo", "single-v1"]
    assert records[82, 2]["judge"] == ["echo", "single-math-v1-multi-turn"]
    assert set(records[81, 1]) == {
        *("question_id", "model", "judge", "user_prompt", "judgment", "score", "turn", "tstamp")
    }
    assert "good two" in records[81, 2]["user_prompt"]
    assert all(each.sampling.greedy for each in stack.engine.requests)
    asked = stack.engine.codec.decode_ids(stack.engine.requests[0].prompt_ids)
    assert "examiner" in asked

    made = len(stack.engine.requests)
    assert run(stack) == 0
    assert len(stack.engine.requests) == made, "what is there is not asked again"


def test_an_answer_that_was_given_anew_is_judged_anew(workplace, make_judge):
    answers_of("good")
    stack = make_judge(lambda prompt: "[[5]]")
    run(stack)
    answers_of("good")
    path = workplace / "data/mt_bench/model_answer/good.jsonl"
    path.write_text(path.read_text().replace("good why", "better why"))
    stack.engine.requests.clear()
    run(stack)
    (asked,) = stack.engine.requests
    assert "better why" in stack.engine.codec.decode_ids(asked.prompt_ids)


def test_a_judge_that_prefers_what_it_sees_first_makes_ties(workplace, make_judge, capsys):
    answers_of("one")
    answers_of("two")
    stack = make_judge(lambda prompt: "[[A]]")
    flags = ["--mode", "pairwise-baseline", "--baseline-model", "two"]
    assert run(stack, *flags) == 0
    records = read_lines(PAIR)
    assert len(records) == 5
    assert {(each["g1_winner"], each["g2_winner"]) for each in records} == {("model_1", "model_2")}
    show_result.main(["--judge-model", "echo", *flags, "--json"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["wins"], row["losses"], row["ties"], row["value"]) == (0, 0, 5, 0.5)


def better(prompt):
    """Prefers the model `two`, wherever it stands; cannot decide about the sums."""
    if "1+1" in prompt:
        return "[[C]]" if "2+2" in prompt else "who knows"
    first = re.search("(one|two) (one|two|why)", prompt)[1]
    return "[[A]]" if first == "two" else "[[B]]"


def test_pairs_are_judged_in_both_orders(workplace, make_judge, capsys):
    answers_of("one")
    answers_of("two")
    stack = make_judge(better)
    assert run(stack, "--mode", "pairwise-all") == 0
    records = {(each["question_id"], each["turn"]): each for each in read_lines(PAIR)}
    assert records[83, 1]["g1_winner"] == records[83, 1]["g2_winner"] == "model_2"
    assert records[82, 1]["g1_winner"] == records[82, 1]["g2_winner"] == "error"
    assert records[82, 2]["g1_winner"] == records[82, 2]["g2_winner"] == "tie"
    assert records[83, 1]["judge"] == ["echo", "pair-v2"]
    first, second = records[83, 1]["g1_user_prompt"], records[83, 1]["g2_user_prompt"]
    assert first.index("one why") < first.index("two why")
    assert second.index("two why") < second.index("one why")
    capsys.readouterr()
    show_result.main(["--judge-model", "echo", "--mode", "pairwise-all", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["model"], row["wins"], row["losses"], row["ties"]) for row in rows] == [
        ("two", 3, 0, 1),
        ("one", 0, 3, 1),
    ]
    assert [row["unparsed"] for row in rows] == [1, 1]
    made = len(stack.engine.requests)
    assert run(stack, "--mode", "pairwise-baseline", "--baseline-model", "one") == 0
    assert len(stack.engine.requests) == made, "the same pair, named the other way round"


def test_a_failed_call_is_not_stored_and_is_made_the_next_time(workplace, make_judge, capsys):
    answers_of("good")
    stack = make_judge(lambda prompt: "[[5]]")
    # One prompt does not fit the judge's context; the others do.
    path = workplace / "data/mt_bench/model_answer/good.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace("good why", "why " * 20_000))
    assert run(stack) == INCOMPLETE
    assert "question 83, turn 1, good" in capsys.readouterr().err
    assert {each["question_id"] for each in read_lines(SINGLE)} == {81, 82}
    path.write_text(whole)
    assert run(stack) == 0
    assert {each["question_id"] for each in read_lines(SINGLE)} == {81, 82, 83}


def test_a_judge_that_is_not_there_ends_the_run_at_once(workplace, make_judge):
    answers_of("good")
    stack = make_judge(str)
    with pytest.raises(UnknownModelError):
        gen_judgment.main(judging_flags(stack, "--yes", "--judge-model", "nobody"))
    assert not (workplace / SINGLE).exists()


def test_enter_begins_and_the_end_of_the_input_does_not(workplace, make_judge, monkeypatch, capsys):
    answers_of("good")
    stack = make_judge(lambda prompt: "[[5]]")
    flags = judging_flags(stack, "--first-n", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SettingsError, match="--yes"):
        gen_judgment.main(flags)
    assert not stack.engine.requests
    assert "2 of them to make: 2 calls" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert status_of(gen_judgment.main, flags) == 0
    assert len(read_lines(SINGLE)) == 2


def test_what_cannot_be_judged_is_said_before_the_first_call(workplace):
    judged = ["--openai-api-base", "http://127.0.0.1:9/v1", "--yes"]
    with pytest.raises(SettingsError, match="no answers to judge"):
        gen_judgment.main(judged)
    answers_of("good")
    with pytest.raises(SettingsError, match=r"gpt-3\.5-turbo"):
        gen_judgment.main([*judged, "--mode", "pairwise-baseline"])
    with pytest.raises(SettingsError, match="two models"):
        gen_judgment.main([*judged, "--mode", "pairwise-all"])
    path = workplace / "data/mt_bench/model_answer/good.jsonl"
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(DataError, match="questions 82, 83"):
        gen_judgment.main(judged)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        gen_judgment.main(["--yes", "--first-n", "1", "--api-key", ""])


def test_a_users_prompts_and_references_are_used(workplace, make_judge):
    answers_of("good")
    prompt = {
        "name": "single-v1",
        "type": "single",
        "system_prompt": "",
        "prompt_template": "JUDGE {question} / {answer}",
        "description": "",
        "category": "general",
        "output_format": "[[rating]]",
    }
    names = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")
    templates = (
        "J {question} {answer}",
        "J {question} {ref_answer_1} {answer}",
        "J {question_1} {answer_1} {question_2} {answer_2}",
        "J {question_1} {ref_answer_1} {answer_1} {question_2} {ref_answer_2} {answer_2}",
    )
    write_lines(
        workplace / "data" / "judge_prompts.jsonl",
        [
            prompt | {"name": name, "prompt_template": template}
            for name, template in zip(names, templates, strict=True)
        ],
    )
    stack = make_judge(lambda prompt: "[[5]]")
    assert run(stack) == 0
    asked = {each["user_prompt"] for each in read_lines(SINGLE)}
    assert "J 1+1? 2 2 2+2? 4 4" in asked
    assert "J Why? good why" in asked


def test_an_engine_that_breaks_is_tried_again(workplace, make_judge, monkeypatch):
    monkeypatch.setattr("fastchat.llm_judge.api_model._PAUSES_S", (0.0, 0.0))
    answers_of("good")
    stack = make_judge(str)
    broken = Script(answer=lambda prompt: "[[5]]", fail_after=0)
    stack.engine.script = broken
    assert run(stack, "--first-n", "1") == INCOMPLETE
    assert len(stack.engine.requests) == 2 * 3
    stack.engine.script = Script(answer=lambda prompt: "[[5]]")
    assert run(stack, "--first-n", "1") == 0
