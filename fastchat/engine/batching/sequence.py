"""One request on its way through the engine: its tokens, its blocks, how far it is computed.

Pure data; who runs when is the scheduler's to say.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastchat.engine.base import GenerationRequest, TokenLogprob
from fastchat.engine.batching.blocks import Block


@dataclass(slots=True, eq=False)
class Sequence:
    """The tokens of one request, and where they are kept.

    Attributes:
        request: what was asked.
        order: requests that came later have higher numbers.
        tokens: the prompt and what was generated.
        budget: tokens that may be generated.
        namespace: sequences of the same one share computed beginnings; None shares nothing.
        adapter: number of the adapter to compute with; -1 is none.
        arrived, begun: when it was asked for, and when its first step was; on the engine's clock.
        deadline: when it is given up if it still waits, on the engine's clock.
        embeds: whether its states are wanted rather than an answer.
        answer: its text side; None where states are wanted.
        sampling: the sampler's record of it.
        lookup: where drafts come from, if it may be drafted for.
        total: (H,) sum of the states so far, where they are wanted.
        prompt_told: log-probabilities of the prompt so far, where they are wanted.
        blocks: of the cache, in order.
        table: their numbers, for the first `len(blocks)` places.
        found: tokens of the prompt that were in the cache when it was first admitted.
        computed: tokens whose keys, values and states are in the cache.
        published: blocks of it that others can find.
    """

    request: GenerationRequest
    order: int
    tokens: list[int]
    budget: int = 0
    namespace: Hashable | None = None
    adapter: int = -1
    arrived: float = 0.0
    begun: float | None = None
    deadline: float | None = None
    embeds: bool = False
    answer: Any = None
    sampling: Any = None
    lookup: Any = None
    total: Any = None
    prompt_told: list[TokenLogprob] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    found: int | None = None
    computed: int = 0
    published: int = 0
    prompt_size: int = field(init=False)
    table: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_size = len(self.tokens)
        self.table = np.zeros(8, np.int32)

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_size

    @property
    def pending(self) -> int:
        """Tokens that are known but not computed; 1 while an answer is being generated."""
        return len(self.tokens) - self.computed

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first."""
        return self.request.priority, self.order

    def add_blocks(self, blocks: list[Block]) -> None:
        """Appends blocks that the sequence holds."""
        count = len(self.blocks) + len(blocks)
        if count > len(self.table):
            self.table = np.resize(self.table, 2 * count)
        self.table[len(self.blocks) : count] = [block.number for block in blocks]
        self.blocks += blocks

    def set_block(self, place: int, block: Block) -> None:
        """Puts another block of the same content in one's place."""
        self.blocks[place] = block
        self.table[place] = block.number

    def clear(self) -> None:
        """Forgets all blocks and what was computed."""
        self.blocks, self.prompt_told = [], []
        self.computed = self.published = 0
