"""How fast a run learns: counts of micro-batches, and the rates they make. Pure but for a clock.

Every process counts its own micro-batches; what is shown is all of theirs together, so the
counts are plain sums that the caller adds up over the processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

Reduce = Callable[[list[float]], list[float]]
"""Adds up a list of numbers over all processes, place by place."""


@dataclass(slots=True)
class Totals:
    """What was computed in some stretch of time.

    Attributes:
        tokens: read by the model, padding left out; a history that several answers share
            counts once.
        trained_tokens: with a label.
        items: conversations.
        positions: tokens and padding.
        flops: useful floating-point operations, see `flops.useful_flops`.
    """

    tokens: float = 0
    trained_tokens: float = 0
    items: float = 0
    positions: float = 0
    flops: float = 0

    def values(self) -> list[float]:
        """The counts in order, to be added up over processes."""
        return [getattr(self, field.name) for field in fields(self)]


class Throughput:
    """Counts micro-batches and tells their rates since it was last asked.

    Time between `start` and the first `rates`, and from then on from one to the next, is
    training; what is not (evaluating, saving) is put into `paused()`.

    Args:
        peak_flops: the best rate of all devices together, in FLOP/s; None if not known.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        peak_flops: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._peak_flops = peak_flops
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Forgets what was counted, and begins."""
        self._totals = Totals()
        self._paused_s = 0.0
        self._since = self._clock()

    def add(
        self,
        tokens: int,
        trained_tokens: int,
        items: int,
        flops: float = 0,
        *,
        padding: int = 0,
    ) -> None:
        """Counts a micro-batch of this process; see `Totals`."""
        totals = self._totals
        totals.tokens += tokens
        totals.trained_tokens += trained_tokens
        totals.items += items
        totals.positions += tokens + padding
        totals.flops += flops

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time spent inside out of the rates."""
        begun = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - begun

    def rates(self, reduce: Reduce | None = None) -> dict[str, float]:
        """The rates since the last call, by the name under which they are logged.

        With several processes every one has to call, as `reduce` waits for all.

        Args:
            reduce: adds the counts up over all processes; None if there is only this one.
        """
        counts = self._totals.values()
        seconds = self._clock() - self._since - self._paused_s
        self.start()
        return rates(Totals(*(reduce(counts) if reduce else counts)), seconds, self._peak_flops)


def rates(totals: Totals, seconds: float, peak_flops: float | None = None) -> dict[str, float]:
    """Rates by name; those that are not known, or not of interest, are left out.

    `tokens_per_second`, `trained_tokens_per_second` and `items_per_second`; `trained_share`
    of the tokens; `padding_share` of the positions, where there is padding;
    `tflops_per_second` where operations were counted, and `mfu`, their share of the peak,
    where that is known.
    """
    if seconds <= 0 or not totals.tokens:
        return {}
    found = {
        "tokens_per_second": totals.tokens / seconds,
        "trained_tokens_per_second": totals.trained_tokens / seconds,
        "items_per_second": totals.items / seconds,
        "trained_share": totals.trained_tokens / totals.tokens,
    }
    if totals.positions > totals.tokens:
        found["padding_share"] = 1 - totals.tokens / totals.positions
    if totals.flops:
        found["tflops_per_second"] = totals.flops / seconds / 1e12
        if peak_flops:
            found["mfu"] = totals.flops / seconds / peak_flops
    return found
