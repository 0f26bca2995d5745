"""Picks tokens with torch's operations, on any device, for all rows at once.

Only the most likely tokens are ever ranked; rows for which that is not enough are done again
with all of them. What is kept after top-k, top-p and min-p is said by one threshold on the
logits, so equally likely tokens are kept or dropped together. Shapes: R rows, V vocabulary,
K shortlist, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from fastchat.engine.sampling.picker import Batch, Entries, Picks, Status, Top, token_logprobs

SHORTLIST = 1024
_BLOCK = 128
_LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True, slots=True)
class _Settings:
    """Columns (R, 1) on the logits' device.

    Attributes:
        draws: whether any row is not greedy.
        ranked: tokens to rank for top-k and top-p; 0 if no row needs it.
    """

    temperature: Tensor
    top_p: Tensor
    min_p: Tensor
    top_k: Tensor
    uniform: Tensor
    draws: bool
    ranked: int

    def of(self, rows: Tensor) -> _Settings:
        return _Settings(
            self.temperature[rows],
            self.top_p[rows],
            self.min_p[rows],
            self.top_k[rows],
            self.uniform[rows],
            self.draws,
            self.ranked,
        )


class TorchPicker:
    """See `Picker`.

    Args:
        vocab_size: logits of a row that count; what stands behind them is padding.
        shortlist: tokens ranked on the usual path.
    """

    def __init__(self, vocab_size: int, shortlist: int = SHORTLIST) -> None:
        self._vocab_size = vocab_size
        self._shortlist = min(shortlist, vocab_size)

    def pick(self, logits: Tensor, batch: Batch) -> Picks:
        """See `Picker.pick`."""
        logits = logits[:, : self._vocab_size]
        asking = np.flatnonzero(batch.settings.alternatives >= 0)
        original = logits[_moved(asking, logits)] if len(asking) else None
        with torch.inference_mode():
            self._edit(logits, batch)
            tokens, statuses, short = self._pick(logits, self._settings(batch, logits))
            picked = torch.stack([tokens, statuses, short.long()]).tolist()
            again = [row for row, is_short in enumerate(picked[2]) if is_short]
            if again:
                rows = _moved(np.array(again), logits)
                settings = self._settings(batch, logits).of(rows)
                tokens, _, _ = self._pick(logits[rows], settings, everything=True)
                for row, token in zip(again, tokens.tolist(), strict=True):
                    picked[0][row] = token
        logprobs, tops = self._logprobs(original, asking, picked[0], batch)
        return Picks(picked[0], picked[1], logprobs, tops)

    def _settings(self, batch: Batch, logits: Tensor) -> _Settings:
        settings = batch.settings
        draws = settings.temperature > 0

        def column(values: NDArray[np.generic]) -> Tensor:
            return _moved(values, logits)[:, None]

        return _Settings(
            column(settings.temperature),
            column(settings.top_p.astype(np.float64)),
            column(settings.min_p),
            column(settings.top_k.astype(np.int64)),
            column(batch.uniform),
            bool(draws.any()),
            self._ranked_tokens(settings.top_k[draws], settings.top_p[draws]),
        )

    def _ranked_tokens(self, top_k: NDArray[np.int32], top_p: NDArray[np.float32]) -> int:
        """How many of the most likely tokens have to be in order."""
        limited = (top_k > 0) & (top_k < self._vocab_size)
        if (~limited & (top_p < 1)).any():
            return self._shortlist
        return min(int(top_k[limited].max(initial=0)), self._shortlist)

    def _edit(self, logits: Tensor, batch: Batch) -> None:
        """Penalties, bias, grammars and bans, in place."""
        if len(batch.seen.ids):
            at = _places(batch.seen, logits)
            counts = np.diff(batch.seen.starts)
            penalty = _moved(np.repeat(batch.settings.penalty, counts), logits)
            values = logits[at]
            logits[at] = torch.where(values > 0, values / penalty, values * penalty)
        if len(batch.shifted.ids):
            assert batch.shifted.values is not None
            shifts = _moved(batch.shifted.values, logits)
            logits.index_put_(_places(batch.shifted, logits), shifts, accumulate=True)
        if len(batch.masks):
            rows = np.flatnonzero(batch.mask_rows >= 0)
            masks = _moved(batch.masks[batch.mask_rows[rows]], logits)
            bits = torch.arange(32, device=logits.device, dtype=torch.int32)
            allowed = (masks[:, :, None] >> bits & 1).flatten(1)[:, : self._vocab_size]
            at_rows = _moved(rows, logits)
            logits[at_rows] = logits[at_rows].masked_fill(allowed == 0, float("-inf"))
        if len(batch.banned.ids):
            logits[_places(batch.banned, logits)] = float("-inf")

    def _pick(
        self, logits: Tensor, settings: _Settings, *, everything: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, statuses, and whether the shortlist was too short; each (R,)."""
        top = logits.amax(dim=-1, keepdim=True)  # (R, 1); NaN if any logit is
        statuses = (
            top.isnan() * Status.NAN
            + (top == float("inf")) * Status.INFINITE
            + (top == float("-inf")) * Status.NOTHING_LEFT
        )[:, 0]
        if not settings.draws:
            return logits.argmax(dim=-1), statuses, torch.zeros_like(statuses, dtype=torch.bool)
        greedy = settings.temperature == 0
        heat = torch.where(greedy, 1.0, settings.temperature)
        threshold = torch.full_like(top, _LOWEST)
        short = torch.zeros_like(greedy)
        if settings.ranked:
            size = self._vocab_size if everything else settings.ranked
            threshold, short = self._ranked(logits, top, heat, settings, size)
        at_least = torch.where(settings.min_p > 0, top + heat * settings.min_p.log(), _LOWEST)
        threshold = torch.maximum(threshold, at_least).clamp(min=_LOWEST)
        kept = logits >= torch.minimum(threshold, top)
        chances = ((logits - top) / heat).exp_() * kept
        drawn = _drawn(chances.nan_to_num_(0.0), settings.uniform).clamp(max=logits.shape[1] - 1)
        return (
            torch.where(greedy[:, 0], logits.argmax(dim=-1), drawn),
            statuses,
            (short & ~greedy)[:, 0],
        )

    def _ranked(
        self, logits: Tensor, top: Tensor, heat: Tensor, settings: _Settings, size: int
    ) -> tuple[Tensor, Tensor]:
        """Thresholds (R, 1) of top-k and top-p, and whether `size` tokens were too few."""
        values = logits.topk(size, dim=-1).values  # (R, K)
        limited = (settings.top_k > 0) & (settings.top_k < self._vocab_size)
        kth = values.gather(1, settings.top_k.clamp(1, size) - 1)
        threshold = torch.where(limited, kth, _LOWEST)
        chances = ((logits - top) / heat).exp_() * (logits >= threshold)
        wanted = settings.top_p * chances.sum(dim=-1, keepdim=True, dtype=torch.float64)
        ranked = ((values - top) / heat).exp_().double() * (values >= threshold)
        reached = ranked.cumsum(dim=-1) >= wanted
        enough = reached.any(dim=-1, keepdim=True)
        nucleus = values.gather(1, reached.int().argmax(dim=-1, keepdim=True))
        cut = (settings.top_p < 1) & enough
        # The last ones that top-k keeps may be more than fit, all equally likely.
        short = (limited & (settings.top_k > size)) | (
            (settings.top_p < 1) & ~enough & ~limited & (size < self._vocab_size)
        )
        return torch.where(cut, torch.maximum(threshold, nucleus), threshold), short

    def _logprobs(
        self, original: Tensor | None, asking: NDArray[np.int64], tokens: list[int], batch: Batch
    ) -> tuple[list[float], list[Top]]:
        logprobs = [0.0] * len(tokens)
        tops: list[Top] = [()] * len(tokens)
        if original is not None:
            counts = batch.settings.alternatives[asking].tolist()
            chosen = [tokens[row] for row in asking]
            found = token_logprobs(original, chosen, max(counts))
            for row, count, (logprob, best) in zip(asking, counts, found, strict=True):
                logprobs[row], tops[row] = logprob, best[:count]
        return logprobs, tops


def _drawn(chances: Tensor, uniform: Tensor) -> Tensor:
    """For each row the token at which the running sum of chances passes its share `uniform`."""
    rest = -chances.shape[1] % _BLOCK
    padded = pad(chances, (0, rest)) if rest else chances
    blocks = padded.view(len(padded), -1, _BLOCK)  # (R, B, 128)
    sums = blocks.sum(dim=-1).double()
    running = sums.cumsum(dim=-1)
    block, within = _passing(running, uniform * running[:, -1:])
    within = within - (running.gather(1, block) - sums.gather(1, block))
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double()
    place, _ = _passing(inside.cumsum(dim=-1), within)
    return (block * _BLOCK + place)[:, 0]


def _passing(running: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where running sums first exceed a target, which rounding may have put past the end."""
    last = torch.nextafter(running[:, -1:], torch.zeros_like(target))
    target = torch.minimum(target, last).clamp(min=0.0)
    place = torch.searchsorted(running, target, right=True)
    return place.clamp(max=running.shape[1] - 1), target


def _places(entries: Entries, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and tokens of sparse entries."""
    rows = np.repeat(np.arange(len(entries.starts) - 1), np.diff(entries.starts))
    return _moved(rows, logits), _moved(entries.ids.astype(np.int64), logits)


def _moved(array: NDArray[np.generic], logits: Tensor) -> Tensor:
    return torch.from_numpy(array).to(logits.device, non_blocking=True)
