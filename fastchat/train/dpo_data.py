"""Data sets and batches of pairs. Shapes: K tokens of answers, B pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastchat.chat import ChatRenderer
from fastchat.data.bins import Bins, first_fit
from fastchat.data.dataset import ItemDataset
from fastchat.data.pairs import read_pairs, rejected_start
from fastchat.data.tree import Tree
from fastchat.errors import DataError
from fastchat.train.arguments import DataArguments
from fastchat.train.batching import ForestCollator


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair's tree and, where it is known already, what the reference makes of it.

    Attributes:
        tree: the prompt with both answers.
        reference: (2,) log probabilities of chosen and rejected answer; None if the
            reference is asked as training goes.
    """

    tree: Tree
    reference: NDArray[np.float32] | None


class PairDataset:
    """The pairs of a run.

    Args:
        items: their trees.

    Attributes:
        stats: what became of the preferences.
        lengths: (N,) tokens of each pair.
        references: (N, 2) log probabilities under the reference, once they are known.
    """

    def __init__(self, items: ItemDataset) -> None:
        self._items = items
        self.stats = items.stats
        self.lengths = items.lengths
        self.references: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Pair:
        """Pair number `index`."""
        known = None if self.references is None else self.references[index]
        return Pair(self._items[index], known)


class PairCollator:
    """Lays pairs out in one row, as a forest: each prompt once, with its two answers."""

    def __call__(self, items: Sequence[Pair | Sequence[Pair]]) -> dict[str, Any]:
        """A batch of one row.

        Returns:
            `ForestCollator`'s, whose learned tokens are those of the answers, with
            `answer_of` (K,), which answer each is of (2 b for pair b's chosen one, 2 b + 1
            for its rejected one), and `reference` (B, 2) where it is known.
        """
        pairs = list(_flatten(items))
        batch = ForestCollator()([pair.tree for pair in pairs])
        batch["answer_of"] = torch.as_tensor(
            np.concatenate([2 * number + _sides(pair.tree) for number, pair in enumerate(pairs)])
        )
        known = [pair.reference for pair in pairs if pair.reference is not None]
        if len(known) == len(pairs):
            batch["reference"] = torch.as_tensor(np.stack(known))
        return batch


def _flatten(items: Sequence[Pair | Sequence[Pair]]) -> Iterator[Pair]:
    for item in items:
        if isinstance(item, Pair):
            yield item
        else:
            yield from item


def _sides(tree: Tree) -> NDArray[np.int64]:
    """0 for each token of the chosen answer, 1 for each of the rejected one."""
    nodes = tree.learned_nodes()
    predicted = nodes[tree.parents()[nodes] >= 0]
    return (predicted >= rejected_start(tree)).astype(np.int64)


def make_preference_data_module(
    tokenizer: Any,
    data_args: DataArguments,
    *,
    renderer: ChatRenderer,
    max_length: int,
    padding_side: str = "right",
    seed: int = 0,
) -> dict[str, Any]:
    """What a `DpoTrainer` takes as data sets and collator.

    Args:
        tokenizer: the model's.
        data_args: which files.
        renderer: the model's chat renderer.
        max_length: longest prompt with an answer, in tokens.
        padding_side: of no effect, as nothing is padded.
        seed: draws what is held out, what a weight takes, and which pairs share a bin.

    Raises:
        DataError: a file cannot be used; see `fastchat.data.preferences`.
    """
    del padding_side
    items = read_pairs(data_args.sources, tokenizer, renderer, max_length, seed)
    held: ItemDataset | None = None
    if data_args.eval_sources:
        held = read_pairs(data_args.eval_sources, tokenizer, renderer, max_length)
    elif data_args.eval_ratio:
        items, held = items.hold_out(data_args.eval_ratio, seed)
    pairs = PairDataset(items)
    evaluation = None if held is None else PairDataset(held)
    train: Any = pairs
    if data_args.tokens_per_batch is not None:
        train = _fill(pairs, data_args.tokens_per_batch, seed)
    return {
        "train_dataset": train,
        "eval_dataset": evaluation,
        "data_collator": PairCollator(),
        "pairs": [pairs] if evaluation is None else [pairs, evaluation],
    }


def _fill(pairs: Any, budget: int, seed: int) -> Bins:
    longest = int(pairs.lengths.max())
    if longest > budget:
        raise DataError(
            f"--tokens_per_batch is {budget}, but one pair has {longest} tokens.",
            hint=f"Give at least {longest}, or a lower --model_max_length.",
        )
    return Bins(pairs, first_fit(pairs.lengths, budget, seed))
