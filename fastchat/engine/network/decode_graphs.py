"""Steps in which every sequence generates, in a few fixed shapes that are recorded once.

On a GPU such a step is many small kernels, and starting them takes longer than running
them. Recorded as one CUDA graph they start together; that needs inputs of fixed shapes at
fixed addresses, so a step is padded with rows that read and write a spare block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastchat.engine.batching.step import Step

Layers = Callable[[Tensor, Step, Tensor | None], Tensor]
"""From states (T, H), the step and the wanted rows to states (Q, H), through all layers."""

Record = Callable[[Callable[[], None]], Callable[[], object]]
"""From work on fixed addresses to something that does this work again."""


class DecodeGraphs:
    """Takes steps through all layers; those of one token a sequence by replaying.

    Args:
        layers: takes any step.
        spare_block, spare_place: of the cache and of the filter's states, for padding.
        block_size: tokens a block.
        record: how work is recorded.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        spare_block: int,
        spare_place: int,
        block_size: int,
        record: Record,
    ) -> None:
        self._layers = layers
        self._spare_block = spare_block
        self._spare_place = spare_place
        self._block_size = block_size
        self._record = record
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    def __call__(self, states: Tensor, step: Step, rows: Tensor | None) -> Tensor:
        """See `Layers`."""
        if rows is not None or len(step.sizes) != len(states):
            return self._layers(states, step, rows)
        count, width = step.tables.shape
        shape = _power_of_two(count), _power_of_two(width)
        found = self._recorded.get(shape)
        if found is None:
            found = self._recorded[shape] = self._new(states, *shape)
        found.fill(states, step)
        found.replay()
        return found.output[:count]

    def _new(self, states: Tensor, count: int, width: int) -> _Recorded:
        device = states.device

        def ints(size: int, value: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.full((size,), value, dtype=dtype, device=device)

        padding = Step(
            token_ids=ints(count, 0, torch.int64),
            positions=ints(count, 0),
            previous=ints(count, -1),
            starts=torch.arange(count + 1, dtype=torch.int32, device=device),
            contexts=ints(count, 1),
            tables=ints(count * width, self._spare_block).view(count, width),
            slots=ints(count, self._spare_block * self._block_size, torch.int64),
            state_rows=torch.arange(count, device=device),
            state_places=ints(count, self._spare_place, torch.int64),
            logit_rows=torch.arange(count, device=device),
            sizes=(1,) * count,
        )
        return _Recorded(
            self._layers, padding, states.new_zeros(count, states.shape[1]), self._record
        )


class _Recorded:
    """One shape: its inputs, and what runs on them."""

    def __init__(self, layers: Layers, padding: Step, states: Tensor, record: Record) -> None:
        self._padding = padding
        self._step = replace(
            padding, **{name: getattr(padding, name).clone() for name in _CHANGING}
        )
        self._states = states
        self.output = torch.zeros_like(states)

        def run() -> None:
            # A new object each time, as what layers share is kept by the step's identity.
            self.output.copy_(layers(self._states.clone(), replace(self._step), None))

        self.replay = record(run)

    def fill(self, states: Tensor, step: Step) -> None:
        """Puts a step where the work reads it."""
        count = len(states)
        self._states[:count] = states
        for name in _CHANGING:
            target, given = getattr(self._step, name), getattr(step, name)
            target.copy_(getattr(self._padding, name))
            if name == "tables":
                target[:count, : given.shape[1]] = given
            else:
                target[:count] = given


_CHANGING = ("positions", "previous", "contexts", "tables", "slots", "state_places")


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def record_on_cuda(run: Callable[[], None]) -> Callable[[], object]:
    """Records work as a CUDA graph."""
    cuda: Any = torch.cuda
    aside = cuda.Stream()
    aside.wait_stream(cuda.current_stream())
    with cuda.stream(aside):  # libraries set themselves up at the first call
        run()
    cuda.current_stream().wait_stream(aside)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        run()
    replay: Callable[[], object] = graph.replay
    return replay
