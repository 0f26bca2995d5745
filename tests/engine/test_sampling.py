"""How one token is picked from given logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastchat.engine.base import SamplingParams
from fastchat.engine.sampling import Sampler
from fastchat.errors import GenerationError

CPU = torch.device("cpu")
LOGITS = torch.tensor([0.0, 3.0, 2.5, -1.0])


def draws(count: int, prompt: tuple[int, ...] = (0,), **values: Any) -> list[int]:
    sampler = Sampler(SamplingParams(**values), prompt, CPU)
    return [sampler.sample(LOGITS) for _ in range(count)]


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}])
def test_greedy(values: dict[str, float]) -> None:
    assert draws(3, **values) == [1, 1, 1]


def test_presence_penalty_counts_once_and_frequency_penalty_each_time() -> None:
    assert draws(4, temperature=0.0, presence_penalty=1.0) == [1, 2, 1, 1]
    assert draws(4, temperature=0.0, frequency_penalty=1.0) == [1, 2, 1, 2]


def test_repetition_penalty_counts_the_prompt() -> None:
    assert draws(1, (1,), temperature=0.0, repetition_penalty=2.0) == [2]
    assert draws(3, temperature=0.0, repetition_penalty=2.0) == [1, 2, 1]


def test_logit_bias() -> None:
    assert draws(1, temperature=0.0, logit_bias={3: 10.0}) == [3]


def test_sampling_follows_the_chances() -> None:
    counts = torch.bincount(torch.tensor(draws(4000, seed=1)), minlength=4) / 4000
    torch.testing.assert_close(counts, LOGITS.softmax(dim=0), atol=0.03, rtol=0)


def test_truncation_leaves_only_likely_tokens() -> None:
    assert set(draws(300, seed=1, top_k=2)) == {1, 2}
    assert set(draws(300, seed=1, top_p=0.7)) == {1, 2}
    assert set(draws(300, seed=1, temperature=5.0)) == {0, 1, 2, 3}


def test_seeds_repeat() -> None:
    assert draws(20, seed=3) == draws(20, seed=3) != draws(20, seed=4)


def test_nan_is_an_error() -> None:
    sampler = Sampler(SamplingParams(), (0,), CPU)
    with pytest.raises(GenerationError, match="NaN"):
        sampler.sample(torch.tensor([0.0, float("nan")]))
