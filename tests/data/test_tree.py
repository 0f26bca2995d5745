"""A tree of rows teaches what the rows teach, no more and no less."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastchat.chat import YuanChatRenderer
from fastchat.data.building import build_trees
from fastchat.data.dataset import row_builder
from fastchat.data.rows import IGNORED, LossMode, Row, RowStats
from fastchat.data.sample import Sample
from fastchat.data.tree import merge
from fastchat.model.tokenization_yuan import YuanTokenizer
from tests.talks import conversations, learned_by, learned_by_rows, learned_by_tree, path_to, talk


def row(ids: Sequence[int], learned: Sequence[bool]) -> Row:
    labels = [token if due else IGNORED for token, due in zip(ids, learned, strict=True)]
    return Row("item", list(ids), labels)


ANYTHING = st.booleans()


@st.composite
def some_rows(draw: st.DrawFn, learning: st.SearchStrategy[bool] = ANYTHING) -> list[Row]:
    """Rows of three tokens, many of which begin like others, end inside others or equal them."""
    tokens = st.lists(st.sampled_from([0, 1, 2]), max_size=6)
    rows = [row(ids, [draw(learning) for _ in ids]) for ids in [[*draw(tokens), 0]]]
    for _ in range(draw(st.integers(0, 5))):
        model = draw(st.sampled_from(rows)).input_ids
        ids = [*model[: draw(st.integers(0, len(model)))], *draw(tokens)]
        if ids:
            rows.append(row(ids, [draw(learning) for _ in ids]))
    return rows


def is_pre_order(parents: Sequence[int]) -> bool:
    return all(
        parent in {-1, *path_to(node - 1, parents)} if node else parent == -1
        for node, parent in enumerate(parents)
    )


@settings(max_examples=300, deadline=None)
@given(some_rows())
def test_a_tree_learns_each_token_as_often_as_its_rows_do(rows: list[Row]) -> None:
    tree = merge(rows)
    assert learned_by_tree(tree) == learned_by_rows(rows)
    assert tree.learned_tokens == len(tree.learned_nodes()) == sum(row.learned for row in rows)
    assert tree.item_id == "item"


@settings(max_examples=200, deadline=None)
@given(some_rows())
def test_descendants_stand_behind_their_node_before_all_others(rows: list[Row]) -> None:
    tree = merge(rows)
    parents = tree.parents().tolist()
    assert is_pre_order(parents)
    starts = [node for node, parent in enumerate(parents) if node and parent != node - 1]
    assert [(start, parents[start]) for start in starts] == list(tree.branches)


@settings(max_examples=200, deadline=None)
@given(some_rows())
def test_rows_made_of_the_tree_learn_the_same(rows: list[Row]) -> None:
    again = merge(rows).rows()
    assert learned_by(again) == learned_by_rows(rows)
    assert all(learned.any() for _, learned in again)


@settings(max_examples=200, deadline=None)
@given(some_rows(learning=st.just(False)))
def test_what_rows_share_stands_once(rows: list[Row]) -> None:
    prefixes = {
        tuple(row.input_ids[:stop]) for row in rows for stop in range(1, len(row.input_ids) + 1)
    }
    assert len(merge(rows)) == len(prefixes)


@given(some_rows())
def test_a_single_row_is_a_chain(rows: list[Row]) -> None:
    single = rows[-1]
    tree = merge([single])
    assert tree.input_ids.tolist() == single.input_ids
    assert tree.parents().tolist() == list(range(-1, len(single.input_ids) - 1))
    assert not tree.branches
    assert learned_by_tree(tree) == learned_by_rows([single])


def test_equal_rows_part_where_both_learn() -> None:
    twice = [row([5, 6, 7], [False, False, True])] * 2
    tree = merge(twice)
    assert tree.input_ids.tolist() == [5, 6, 7, 7]
    assert tree.parents().tolist() == [-1, 0, 1, 1]
    assert tree.learned_nodes().tolist() == [2, 3]


def test_rows_with_nothing_in_common_are_trees_beside_each_other() -> None:
    tree = merge([row([1, 2], [False, True]), row([2, 2], [False, True])])
    assert tree.parents().tolist() == [-1, 0, -1, 2]
    assert tree.branches == [(2, -1)]


def test_a_conversation_may_have_any_number_of_answers() -> None:
    rows = [row([1] * length + [2], [False] * length + [True]) for length in range(1, 1100)]
    tree = merge(rows)
    assert len(tree) == 2 * len(rows)
    assert tree.learned_tokens == len(rows)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("mode", LossMode)
@given(sample=conversations(), limit=st.sampled_from([16, 40, 10_000]))
def test_a_conversations_tree_learns_what_its_rows_learn(
    tokenizer: YuanTokenizer,
    renderer: YuanChatRenderer,
    mode: LossMode,
    sample: Sample,
    limit: int,
) -> None:
    builder = row_builder(tokenizer, renderer, mode, limit)
    stats = RowStats()
    built = list(build_trees(builder, [sample], stats))
    if not built:
        assert stats.rows == stats.laid_out_tokens == 0
        return
    ((_, rows, tree),) = built
    assert learned_by_tree(tree) == learned_by_rows(rows)
    assert len(tree) == stats.laid_out_tokens <= stats.tokens
    assert tree.learned_tokens == stats.learned_tokens


def test_answers_share_their_history(tokenizer: YuanTokenizer, renderer: YuanChatRenderer) -> None:
    builder = row_builder(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 10_000)
    stats = RowStats()
    sample = talk(*["How are you today?", "Very well, thank you."] * 8)
    assert len(list(build_trees(builder, [sample], stats))) == 1
    assert stats.tokens > 2 * stats.laid_out_tokens
