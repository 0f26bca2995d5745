"""How tokens are picked from given logits, by both pickers, against transformers' processors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fastchat.engine.base import SamplingParams
from fastchat.engine.native.build import NativeUnavailableError
from fastchat.engine.native.library import ThreadPool
from fastchat.engine.sampling import (
    BatchSampler,
    Row,
    RowState,
    Sampled,
    check,
    token_logprobs,
)
from fastchat.engine.sampling.random import uniforms
from fastchat.errors import GenerationError, RequestError

LOGITS = torch.tensor([0.0, 3.0, 2.5, -1.0])
VOCAB = 700


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPool]:
    try:
        pool = ThreadPool(2)
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    yield pool
    pool.close()


@pytest.fixture(scope="module", params=["torch", "native"])
def pool(request) -> ThreadPool | None:
    return request.getfixturevalue("threads") if request.param == "native" else None


def state(prompt: Sequence[int] = (0,), **values: Any) -> RowState:
    return RowState(SamplingParams(**values), prompt, end_ids=(0,))


def sample(logits: Tensor, rows: Sequence[Row], pool: ThreadPool | None) -> list[Sampled]:
    """Of logits (R, V)."""
    sampler = BatchSampler(logits.shape[1], pool)
    results = sampler.sample(logits.float().clone(), rows)
    sampler.close()
    return results


def draws(
    count: int, pool: ThreadPool | None, prompt: Sequence[int] = (0,), **values: Any
) -> list[int]:
    """Tokens of one request, one after the other."""
    row, tokens = state(prompt, **values), []
    sampler = BatchSampler(len(LOGITS), pool)
    for _ in range(count):
        tokens.append(sampler.sample(LOGITS[None].clone(), [Row(row)])[0].token)
        row.accept(tokens[-1])
    sampler.close()
    return tokens


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}])
def test_greedy(pool, values: dict[str, float]) -> None:
    assert draws(3, pool, **values) == [1, 1, 1]


def test_presence_penalty_counts_once_and_frequency_penalty_each_time(pool) -> None:
    assert draws(4, pool, temperature=0.0, presence_penalty=1.0) == [1, 2, 1, 1]
    assert draws(4, pool, temperature=0.0, frequency_penalty=1.0) == [1, 2, 1, 2]


def test_repetition_penalty_counts_the_prompt(pool) -> None:
    assert draws(1, pool, (1,), temperature=0.0, repetition_penalty=2.0) == [2]
    assert draws(3, pool, temperature=0.0, repetition_penalty=2.0) == [1, 2, 1]


def test_logit_bias(pool) -> None:
    assert draws(1, pool, temperature=0.0, logit_bias={3: 10.0}) == [3]


def test_no_run_of_tokens_comes_twice(pool) -> None:
    assert draws(4, pool, (3, 1), temperature=0.0, no_repeat_ngram=2) == [1, 2, 1, 0]
    assert draws(3, pool, (1,), temperature=0.0, no_repeat_ngram=1) == [2, 0, 0]


def test_an_answer_does_not_end_before_its_least_length(pool) -> None:
    assert draws(3, pool, temperature=0.0, logit_bias={0: 9.0}, min_new_tokens=2) == [1, 1, 0]


# ---- against transformers ---------------------------------------------------------------------


def processors(values: dict[str, Any]) -> LogitsProcessorList:
    """What transformers' `generate` does with the same values."""
    made = LogitsProcessorList([TemperatureLogitsWarper(values["temperature"])])
    if values["top_k"] > 0:
        made.append(TopKLogitsWarper(values["top_k"]))
    if values["top_p"] < 1:
        made.append(TopPLogitsWarper(values["top_p"]))
    if values["min_p"] > 0:
        made.append(MinPLogitsWarper(values["min_p"]))
    return made


truncations = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([-1, 2, 7, 40, 699, 10_000]),
        "top_p": st.sampled_from([1.0, 0.99, 0.7, 0.2, 0.01]),
        "min_p": st.sampled_from([0.0, 0.001, 0.2, 1.0]),
    }
)


@settings(deadline=None, max_examples=60)
@given(values=truncations, spread=st.sampled_from([0.3, 2.0, 8.0]), seed=st.integers(0, 99))
def test_the_same_tokens_are_kept_with_the_same_chances(
    pool, values: dict[str, Any], spread: float, seed: int
) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * spread
    kept = processors(values)(torch.zeros(1, 1, dtype=torch.long), logits[None].double())[0]
    edges = kept.softmax(dim=0).cumsum(dim=0)
    count = 200
    rows = [Row(state(seed=each, **values)) for each in range(count)]
    results = sample(logits.expand(count, VOCAB), rows, pool)
    seeds = np.arange(count, dtype=np.uint64)
    for number, result in zip(uniforms(seeds, seeds * 0).tolist(), results, strict=True):
        # The token is the first whose running sum of chances exceeds the row's number.
        low, high = (int(torch.searchsorted(edges, number + s * 2e-6)) for s in (-1, 1))
        assert low <= result.token <= high
        assert kept[result.token] > -float("inf") or low < high


@settings(deadline=None, max_examples=40)
@given(
    prompt=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    answer=st.lists(st.integers(0, 5), max_size=8),
    ahead=st.integers(0, 8),
    penalty=st.sampled_from([1.0, 0.7, 1.3]),
    size=st.integers(0, 3),
)
def test_penalties_agree_with_transformers_and_openai(
    pool, prompt: list[int], answer: list[int], ahead: int, penalty: float, size: int
) -> None:
    """Whether the last tokens were accepted or are only assumed."""
    logits = torch.tensor([1.0, -1.0, 2.0, 0.5, -0.2, 1.4, 0.0, 0.0])
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([prompt + answer]), logits[None]
    )[0]
    for token in range(6):
        count = answer.count(token)
        expected[token] -= 0.3 * count + 0.7 * (count > 0)
    expected[6] += 1.0
    if size:
        ngrams = NoRepeatNGramLogitsProcessor(size)
        expected = ngrams(torch.tensor([prompt + answer]), expected[None])[0]
    row = state(
        prompt,
        temperature=1.0,
        repetition_penalty=penalty,
        frequency_penalty=0.3,
        presence_penalty=0.7,
        logit_bias={6: 1.0},
        no_repeat_ngram=size,
    )
    row.end_ids = ()
    split = max(len(answer) - ahead, 0)
    for token in answer[:split]:
        row.accept(token)
    sampler = BatchSampler(len(logits), pool)
    edited = logits[None].clone()
    sampler.sample(edited, [Row(row, tuple(answer[split:]))])
    sampler.close()
    torch.testing.assert_close(edited[0], expected)


def test_sampling_follows_the_chances(pool) -> None:
    """Pearson's test of 20,000 draws; 29.6 is passed by chance once in 10,000 times."""
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 0.3, 0.9, 1.5])
    count = 20_000
    rows = [Row(state(seed=seed)) for seed in range(count)]
    tokens = [each.token for each in sample(logits.expand(count, 9), rows, pool)]
    expected = logits.softmax(dim=0) * count
    counts = torch.bincount(torch.tensor(tokens), minlength=9)
    assert float(((counts - expected) ** 2 / expected).sum()) < 31.8


# ---- whatever runs beside it ------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    """As many different settings."""
    choice = np.random.default_rng(1).choice
    return [
        {
            "temperature": float(choice([0.0, 0.5, 1.0, 1.7])),
            "top_p": float(choice([1.0, 0.9, 0.5])),
            "top_k": int(choice([-1, 3, 100])),
            "min_p": float(choice([0.0, 0.1])),
            "repetition_penalty": float(choice([1.0, 1.4])),
            "presence_penalty": float(choice([0.0, 0.6])),
            "frequency_penalty": float(choice([0.0, 0.6])),
            "no_repeat_ngram": int(choice([0, 2])),
            "logit_bias": {int(choice(VOCAB)): 3.0},
            "logprobs": int(choice([0, 4])) or None,
            "seed": seed,
        }
        for seed in range(count)
    ]


def test_a_row_is_sampled_as_if_it_were_alone(pool) -> None:
    logits = torch.randn(24, VOCAB, generator=torch.Generator().manual_seed(0)) * 3
    rows = [Row(state((1, 2, 3), **values)) for values in many(24)]
    together = sample(logits, rows, pool)
    for place in range(24):
        assert sample(logits[place : place + 1], rows[place : place + 1], pool) == [together[place]]


def test_assumed_tokens_count_as_accepted_ones(pool) -> None:
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0)) * 3
    for values in many(24):
        taken, assuming = (state((1, 2, 3), min_new_tokens=3, **values) for _ in range(2))
        for token in (7, 2, 7):
            taken.accept(token)
        assert sample(logits, [Row(taken)], pool) == sample(
            logits, [Row(assuming, (7, 2, 7))], pool
        )


def test_both_pickers_pick_the_same(threads) -> None:
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(2)) * 4
    rows = [Row(state((1, 2, 3), **values | {"logit_bias": {}})) for values in many(64)]
    by_torch, compiled = (sample(logits, rows, pool) for pool in (None, threads))
    assert [each.token for each in by_torch] == [each.token for each in compiled]
    for one, other in zip(by_torch, compiled, strict=True):
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
        if one.logprob is not None:
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("values", [{"top_p": 0.9}, {"top_k": 1500}, {"top_p": 0.3, "top_k": 3000}])
def test_flat_chances_need_more_than_a_shortlist(threads, values: dict[str, Any]) -> None:
    logits = torch.randn(8, 5001, generator=torch.Generator().manual_seed(3)) / 4
    rows = [Row(state(seed=seed, temperature=1.5, **values)) for seed in range(8)]
    assert sample(logits, rows, None) == sample(logits, rows, threads)


def test_equally_likely_tokens_are_kept_together(pool) -> None:
    """No order of sorting decides: of equal chances either all are kept or none."""
    logits = torch.tensor([1.0, 2.0, 2.0, 0.0]).expand(200, 4)
    for values in ({"top_p": 0.1}, {"min_p": 1.0}):
        rows = [Row(state(seed=seed, **values)) for seed in range(200)]
        assert {each.token for each in sample(logits, rows, pool)} == {1, 2}


def test_seeds_repeat(pool) -> None:
    values = {"temperature": 2.0}
    assert draws(20, pool, seed=3, **values) == draws(20, pool, seed=3, **values)
    assert draws(20, pool, seed=3, **values) != draws(20, pool, seed=4, **values)
    assert draws(20, pool, seed=-1, **values) == draws(20, pool, seed=2**64 - 1, **values)
    assert draws(40, pool, **values) != draws(40, pool, **values)


# ---- log-probabilities and errors --------------------------------------------------------------


def test_logprobs_are_those_before_any_change(pool) -> None:
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(0))
    values = {"temperature": 0.5, "top_k": 5, "repetition_penalty": 2.0, "logit_bias": {3: 50.0}}
    result = sample(logits, [Row(state((1,), logprobs=4, **values))], pool)[0]
    expected = logits[0].log_softmax(dim=0)
    assert result.token == 3
    assert result.logprob == pytest.approx(float(expected[3]), abs=1e-5)
    best = expected.topk(4)
    assert [token for token, _ in result.top] == best.indices.tolist()
    assert [value for _, value in result.top] == pytest.approx(best.values.tolist(), abs=1e-5)
    (logprob, top) = token_logprobs(logits, [3], 4)[0]
    assert logprob == pytest.approx(result.logprob, abs=1e-5)
    assert [token for token, _ in top] == [token for token, _ in result.top]


def test_a_bad_row_fails_alone(pool) -> None:
    logits = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(0))
    logits[1, 600], logits[2, 3] = float("nan"), float("inf")
    everything = {token: -float("inf") for token in range(VOCAB)}
    rows = [Row(state(seed=1, logprobs=1 if place else None)) for place in range(5)]
    rows[3] = Row(state(seed=1, logit_bias=everything))
    results = sample(logits, rows, pool)
    said = [None if each.error is None else str(each.error) for each in results]
    assert said[0] is said[4] is None
    assert all(isinstance(results[row].error, GenerationError) for row in (1, 2, 3))
    for row, word in ((1, "NaN"), (2, "infinite"), (3, "ruled out")):
        assert word in (said[row] or "")
    assert results[0] == sample(logits[:1], rows[:1], pool)[0]


def test_padding_of_the_vocabulary_is_never_picked(pool) -> None:
    sampler = BatchSampler(VOCAB - 5, pool)
    logits = torch.zeros(50, VOCAB)
    logits[:, VOCAB - 5 :] = 99.0
    rows = [Row(state(seed=seed, logprobs=3)) for seed in range(50)]
    results = sampler.sample(logits, rows)
    assert all(each.token < VOCAB - 5 and each.error is None for each in results)
    assert all(token < VOCAB - 5 for each in results for token, _ in each.top)
    sampler.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("top_k", 0),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 3.0),
        ("no_repeat_ngram", -1),
        ("min_new_tokens", 11),
        ("max_new_tokens", 0),
        ("logprobs", 100_000),
        ("logit_bias", {VOCAB: 1.0}),
        ("logit_bias", {1: float("nan")}),
        ("stop", ("x",) * 100_000),
        ("stop", ("x" * 10_000_000,)),
    ],
)
def test_values_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name) as caught:
        check(SamplingParams(**{"max_new_tokens": 10, name: value}), VOCAB)
    assert caught.value.param == name


def test_a_thousand_long_stop_strings_are_fine() -> None:
    check(SamplingParams(stop=tuple(f"{each:01000}" for each in range(1000))), VOCAB)
