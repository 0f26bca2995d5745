"""Rows hold what is served, and labels hold the answers: for any text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.chat import JinjaChatRenderer, YuanChatRenderer
from fastchat.data.dataset import HeldItems, row_builder
from fastchat.data.rows import IGNORED, LossMode, RowBuilder, label_answers
from fastchat.data.sample import Sample
from fastchat.errors import DataError
from fastchat.model import load_tokenizer
from fastchat.model.tokenization_yuan import YuanTokenizer
from fastchat.prompt_styles import Span
from tests.talks import conversations, learned_by_rows, learned_by_tree, same_tree, talk

UNLIMITED = 1_000_000

any_conversation = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def learned_ids(labels: list[int]) -> list[int]:
    return [label for label in labels if label != IGNORED]


@pytest.mark.parametrize("mode", [LossMode.SPLIT_EXAMPLE, LossMode.LAST_RESPONSE])
@any_conversation
@given(sample=conversations())
def test_every_learned_answer_stands_as_it_is_served(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer, mode: LossMode, sample: Sample
) -> None:
    builder = row_builder(tokenizer, renderer, mode, UNLIMITED)
    targets = list(builder.targets(sample))
    answers = [i for i, m in enumerate(sample.messages) if m["role"] == "assistant"]
    assert targets == (answers if mode is LossMode.SPLIT_EXAMPLE else answers[-1:])
    for target in targets:
        row = builder.row(sample, target)
        assert row is not None
        served = renderer.render(sample.messages[:target]).ids
        assert row.input_ids[: len(served)] == served
        assert row.labels[: len(served)] == [IGNORED] * len(served)
        assert row.labels[len(served) :] == row.input_ids[len(served) :]
        answer = sample.messages[target]["content"].strip()
        # SentencePiece takes a typed "▁" for a space: its own mark for one.
        assert tokenizer.decode_ids(learned_ids(row.labels)) == answer.replace("▁", " ") + "<eod>"
        assert row.labels[-1] == tokenizer.eos_token_id
        assert row.straddling == 0


@any_conversation
@given(sample=conversations())
def test_efficient_learns_every_answer_but_for_tokens_across_its_border(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer, sample: Sample
) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.EFFICIENT, UNLIMITED)
    (target,) = builder.targets(sample)
    row = builder.row(sample, target)
    assert row is not None

    prompt = renderer.render(sample.messages[:target])
    last = renderer.answer_ids(sample.messages[target]["content"])
    assert row.input_ids == prompt.ids + last
    assert row.labels[len(prompt.ids) :] == last

    # Told apart from the code under test by single characters: what each one's owner is.
    _, offsets = tokenizer.encode_offsets(prompt.text.removesuffix("<sep>"))
    owned = {
        place
        for span in prompt.spans
        if span.role == "assistant"
        for place in range(span.start, span.end)
    }
    straddling, kept, cut = 0, set[int](), set[int]()
    for (start, end), label in zip(offsets, row.labels, strict=False):
        places = set(range(start, end))
        if places and places <= owned:
            assert label != IGNORED
            kept |= places
        else:
            assert label == IGNORED
            straddling += bool(places & owned)
            cut |= places & owned
    assert row.straddling == straddling
    assert kept | cut == owned
    assert not kept & cut
    if not straddling:
        text = tokenizer.decode_ids(learned_ids(row.labels))
        answers = "".join(m["content"].strip() for m in sample.messages if m["role"] == "assistant")
        # A first token's space is dropped in decoding, so spaces at joints can differ.
        spaceless = answers.replace(" ", "").replace("▁", "")
        assert text.replace(" ", "") == spaceless + "<eod>"


@any_conversation
@given(
    samples=st.lists(conversations(), min_size=1, max_size=3),
    mode=st.sampled_from(LossMode),
    limit=st.integers(8, 60),
)
def test_lazy_and_eager_give_the_same_rows(
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    samples: list[Sample],
    mode: LossMode,
    limit: int,
) -> None:
    builder = row_builder(tokenizer, renderer, mode, limit)
    eager, lazy = (HeldItems(samples, builder, lazy=lazy) for lazy in (False, True))
    assert len(eager) == len(lazy) <= len(samples)
    assert all(same_tree(eager[i], lazy[i]) for i in range(len(eager)))
    assert eager.stats == lazy.stats
    assert eager.lengths.tolist() == lazy.lengths.tolist() == [len(tree) for tree in eager]
    rows = [
        row
        for sample in samples
        for target in builder.targets(sample)
        if (row := builder.row(sample, target)) is not None
    ]
    assert all(len(row.input_ids) <= limit for row in rows)
    assert sum(map(learned_by_tree, eager), Counter()) == learned_by_rows(rows)
    assert eager.stats.rows == len(rows)


@any_conversation
@given(sample=conversations(), mode=st.sampled_from(LossMode), limit=st.integers(4, 60))
def test_a_row_that_is_too_long_loses_its_oldest_turns_and_never_an_answers_end(
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    sample: Sample,
    mode: LossMode,
    limit: int,
) -> None:
    builder = row_builder(tokenizer, renderer, mode, limit)
    first = sample.first_question
    for target in builder.targets(sample):
        row = builder.row(sample, target)
        answer = renderer.answer_ids(sample.messages[target]["content"])

        def length(start: int, target: int = target, answer: list[int] = answer) -> int:
            kept = sample.messages[:first] + sample.messages[start:target]
            return len(renderer.render(kept).ids) + len(answer)

        fitting = [start for start in range(first, target, 2) if length(start) <= limit]
        if row is None:
            assert not fitting
        else:
            assert row.dropped_turns == fitting[0] - first
            assert len(row.input_ids) == length(fitting[0])
            assert row.input_ids[-len(answer) :] == answer == row.labels[-len(answer) :]


def test_a_token_across_the_border_of_an_answer_is_counted_and_not_learned() -> None:
    #       q     <     n     >     a     b     ?<       n     >     r
    ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    offsets = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 10), (10, 11)]
    spans = [Span(0, 1, "user", 0), Span(4, 7, "assistant", 1), Span(10, 11, "user", 2)]
    labels, straddling = label_answers(ids, offsets, spans)
    assert labels == [IGNORED] * 4 + [5, 6] + [IGNORED] * 4
    assert straddling == 1


def test_an_empty_offset_belongs_to_nobody() -> None:
    labels, straddling = label_answers([1, 2], [(0, 0), (0, 1)], [Span(0, 1, "assistant", 0)])
    assert (labels, straddling) == ([IGNORED, 2], 0)


def test_the_published_model_merges_a_question_mark_with_the_turn_mark(
    yuan2_tokenizer_path: Path,
) -> None:
    tokenizer = load_tokenizer(yuan2_tokenizer_path)
    renderer = YuanChatRenderer(tokenizer)
    builder = row_builder(tokenizer, renderer, LossMode.EFFICIENT, UNLIMITED)
    sample = talk("hi", "why?", "so", "ok")
    row = builder.row(sample, 3)
    assert row is not None
    assert row.straddling == 1
    assert tokenizer.decode_ids(learned_ids(row.labels)[:1]) == "why"


def test_counts_say_what_became_of_every_sample(
    tokenizer: YuanTokenizer, renderer: YuanChatRenderer
) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 24)
    samples = [
        talk("a", "b", "c", "d"),
        talk("long " * 30, "b", "c", "d"),
        talk("a", "long " * 30),
        Sample("silent", (), leading_dropped=True, trailing_dropped=True),
    ]
    stats = HeldItems(samples, builder, lazy=False).stats
    assert stats.samples == 4
    assert stats.rows == 3
    assert stats.shortened_rows == 1
    assert stats.too_long_rows == 2
    assert stats.samples_without_answer == 1
    assert stats.leading_turns_dropped == stats.trailing_questions_dropped == 1
    assert "2 rows left out: too long" in str(stats)


def test_efficient_needs_to_know_where_the_answers_are(tokenizer: YuanTokenizer) -> None:
    jinja = JinjaChatRenderer(tokenizer)
    builder = RowBuilder(jinja, LossMode.EFFICIENT, UNLIMITED, tokenizer.encode_offsets)
    single = builder.row(talk("a", "b"), 1)
    assert single is not None
    assert single.labels[-1] == tokenizer.eos_token_id
    with pytest.raises(DataError, match="needs the Yuan2 template"):
        builder.row(talk("a", "b", "c", "d"), 3)
    without_offsets = RowBuilder(YuanChatRenderer(tokenizer), LossMode.EFFICIENT, UNLIMITED)
    with pytest.raises(DataError, match="'talk' has several answers"):
        without_offsets.row(talk("a", "b", "c", "d"), 3)
