"""Conversations with any text in them, and what trees and rows learn, told in the plainest way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypothesis import strategies as st

from fastchat.data.rows import IGNORED, Row
from fastchat.data.sample import Sample
from fastchat.data.tree import Tree

ANY_TEXT = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "<sep>",
                "<eod>",
                "<n>",
                "n",
                "<",
                ">",
                "\n",
                " ",
                "?",
                "😀",
                "👩‍🚀",
                "你好",
                "，",
                "▁",
            ]
        ),
        st.text(max_size=8),
    ),
    max_size=6,
).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> Sample:
    system = draw(st.none() | ANY_TEXT.filter(str.strip))
    texts = draw(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=4))
    return talk(*(text for pair in texts for text in pair), system=system)


def talk(*texts: str, system: str | None = None, name: str = "talk") -> Sample:
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)
    ]
    return Sample(name, tuple(messages))


def as_json(sample: Sample) -> dict[str, object]:
    """A sample as a file holds it."""
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[m["role"]], "value": m["content"]} for m in sample.messages]
    return {"id": sample.id, "conversations": turns}


def write_samples(path: Path, samples: Iterable[Sample]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(as_json(sample)) + "\n" for sample in samples), "utf-8")
    return path


def learned_by_rows(rows: Iterable[Row]) -> Counter[tuple[int, ...]]:
    """Each learned token, as all ids of its row up to it."""
    return learned_by((row.input_ids, [label != IGNORED for label in row.labels]) for row in rows)


def learned_by(
    rows: Iterable[tuple[Sequence[int], Sequence[bool]]],
) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(map(int, ids[: place + 1]))
        for ids, learned in rows
        for place, due in enumerate(learned)
        if due
    )


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    """A node's ancestors from the root on, and itself."""
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]


def learned_by_tree(tree: Tree) -> Counter[tuple[int, ...]]:
    """Each learned node, as the ids on the way to it."""
    parents, ids = tree.parents().tolist(), tree.input_ids.tolist()
    nodes = tree.learned_nodes().tolist()
    return Counter(tuple(ids[at] for at in path_to(node, parents)) for node in nodes)


def same_tree(one: Tree, other: Tree) -> bool:
    """Whether two trees are equal in all they say."""
    return (
        one.item_id == other.item_id
        and one.input_ids.tolist() == other.input_ids.tolist()
        and list(one.branches) == list(other.branches)
        and list(one.learned) == list(other.learned)
    )
