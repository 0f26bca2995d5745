"""Upstream's way of serving, on our own network: a thread and a `generate` loop a request.

Each loop feeds its one sequence through the model of transformers, token by token, with a
cache of its own; so many run at once, the rest wait.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from fastchat.model import YuanForCausalLM

SETTINGS = tuple(itertools.product((1, 2), (1, 5, 64)))
"""Threads of torch, and requests at once, that are tried."""


class Loop:
    """The model, and how many threads and requests it is given."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = YuanForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self.setting = SETTINGS[0]

    def choose(self, asked: Sequence[Sequence[int]], new: int) -> dict[str, float]:
        """Takes the fastest of the settings."""
        rates = {}
        for setting in SETTINGS:
            self.setting = setting
            rates[setting] = self.rate(asked, new)
        self.setting = max(rates, key=rates.__getitem__)
        return {f"{threads} threads, {limit} at once": r for (threads, limit), r in rates.items()}

    def rate(self, asked: Sequence[Sequence[int]], new: int) -> float:
        """Tokens a second over all requests."""
        threads, limit = self.setting
        torch.set_num_threads(threads)
        start = time.perf_counter()
        with ThreadPoolExecutor(limit) as pool:
            list(pool.map(lambda prompt: self._answer(prompt, new), asked))
        return len(asked) * new / (time.perf_counter() - start)

    @torch.inference_mode()
    def _answer(self, prompt: Sequence[int], new: int) -> list[int]:
        fed, cache, found = torch.tensor([list(prompt)]), None, []
        for _ in range(new):
            output = self._model(
                input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = output.past_key_values
            found.append(int(output.logits[0, -1].float().argmax()))
            fed = torch.tensor([found[-1:]])
        return found
