"""Which block of the cache belongs to whom: allocation, shared beginnings, eviction. Pure.

A sequence's keys and values lie in blocks of a fixed number of tokens. A full block is a
node of a tree: it hangs under the block before it, by its tokens, so that a sequence that
begins alike finds what is computed already (a radix tree whose edges are blocks). With each
block goes the filter's state behind its last token, so computing can go on from any block.

Knows nothing of tensors: a block is a number here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Block:
    """One block of the cache.

    Attributes:
        number: its place in the cache.
        holders: sequences that use it; with none it may be evicted.
        parent: the node that it hangs under, if it is in the tree.
        tokens: those it holds, if it is in the tree.
        children: full blocks that follow it, by their tokens.
    """

    number: int
    holders: int = 0
    parent: Block | None = None
    tokens: Tokens = ()
    children: dict[Tokens, Block] = field(default_factory=dict)


class BlockPool:
    """All blocks of a cache.

    Args:
        count: blocks in all.
        block_size: tokens a block.
    """

    def __init__(self, count: int, block_size: int) -> None:
        self.block_size = block_size
        self.count = count
        self._free = [Block(number) for number in reversed(range(count))]
        # In the tree but held by nobody, longest unused first. A holder of a block holds all
        # before it and gives them up last to first, so a child always stands before its parent.
        self._idle: dict[Block, None] = {}
        self._roots: dict[Hashable, Block] = {}

    @property
    def available(self) -> int:
        """Blocks that can be had now."""
        return len(self._free) + len(self._idle)

    @property
    def held(self) -> int:
        """Blocks that sequences use."""
        return self.count - self.available

    def root(self, namespace: Hashable) -> Block:
        """The node that the first blocks of a namespace hang under; it holds no tokens."""
        found = self._roots.get(namespace)
        if found is None:
            found = self._roots[namespace] = Block(-1)
        return found

    def find(self, namespace: Hashable, tokens: Sequence[int]) -> list[Block]:
        """The computed blocks that a sequence begins with; the caller does not hold them yet."""
        node, found, size = self._roots.get(namespace), [], self.block_size
        for start in range(0, len(tokens) - size + 1, size):
            node = node and node.children.get(tuple(tokens[start : start + size]))
            if node is None:
                break
            found.append(node)
        return found

    def hold(self, blocks: Iterable[Block]) -> None:
        """Makes the caller a holder of blocks."""
        for block in blocks:
            if block.holders == 0:
                self._idle.pop(block, None)
            block.holders += 1

    def take(self) -> Block:
        """An empty block, held by the caller; evicts the one that is longest unused if need be.

        Raises:
            IndexError: none is available.
        """
        if not self._free:
            self._evict()
        block = self._free.pop()
        block.holders = 1
        return block

    def give_up(self, blocks: Sequence[Block]) -> None:
        """Ends the caller's hold on the blocks of a sequence, in the sequence's order."""
        for block in reversed(blocks):
            block.holders -= 1
            if block.holders == 0:
                if block.parent is None:
                    self._free.append(block)
                else:
                    self._idle[block] = None

    def publish(self, block: Block, parent: Block, tokens: Tokens) -> Block:
        """Hangs a full block into the tree, so that others find it.

        Returns:
            The block to use from now on: another one, now held by the caller in place of
            this, if the same tokens were computed twice.
        """
        known = parent.children.get(tokens)
        if known is None:
            block.parent, block.tokens = parent, tokens
            parent.children[tokens] = block
            return block
        self.hold([known])
        self.give_up([block])
        return known

    def forget(self, namespace: Hashable) -> None:
        """Drops a namespace's idle blocks, whose content is no longer true."""
        gone = self._roots.pop(namespace, None)
        pending = [gone] if gone else []
        while pending:
            node = pending.pop()
            pending += node.children.values()
            node.children.clear()
            node.parent = None
            if node in self._idle:
                del self._idle[node]
                self._free.append(node)

    def _evict(self) -> None:
        block = next(iter(self._idle), None)
        if block is None:
            raise IndexError("no block is available")
        del self._idle[block]
        parent = block.parent
        assert parent is not None
        assert not block.children
        del parent.children[block.tokens]
        block.parent, block.tokens = None, ()
        if parent.number < 0 and not parent.children:
            self._roots = {name: node for name, node in self._roots.items() if node is not parent}
        self._free.append(block)
