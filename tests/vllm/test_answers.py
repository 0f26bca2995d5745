"""vLLM's answers are our engine's, and the published implementation's, token by token."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh has it")

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from fastchat.engine.base import GenerationRequest
from fastchat.engine.base import SamplingParams as OurParams
from fastchat.engine.loading import load_served_model
from tests.vllm.widening import widened_folder

LENGTHS = (
    *(1, 2, 3, 4, 7, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 100, 127, 128, 129),
    *(190, 256, 333, 447, 500),
)
NEW = 12
BLOCK = 32


@contextmanager
def vllm(folder: Path, **settings: Any) -> Iterator[LLM]:
    """vLLM on a model in float32."""
    defaults = {
        "block_size": BLOCK,
        "dtype": "float32",
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "max_num_seqs": 8,
        "skip_tokenizer_init": True,
    }
    llm = LLM(str(folder), **(defaults | settings))
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def answers(llm: LLM, prompts: Sequence[Sequence[int]], new: int = NEW) -> list[list[int]]:
    params = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
    asked = [{"prompt_token_ids": list(ids)} for ids in prompts]
    return [list(each.outputs[0].token_ids) for each in generated(llm, asked, params)]


def generated(llm: LLM, asked: Any, params: SamplingParams) -> list[Any]:
    return llm.generate(asked, params, use_tqdm=False)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    drawn = random.Random(5)
    return [[drawn.randrange(5, 500) for _ in range(length)] for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(small_folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """What our engine answers."""

    async def ours() -> list[list[int]]:
        served = load_served_model(str(small_folder), device="cpu")
        params = OurParams(temperature=0.0, max_new_tokens=NEW, ignore_eos=True)

        async def one(ids: list[int]) -> list[int]:
            stream = served.engine.generate(GenerationRequest(ids, params))
            return [token async for event in stream for token in event.token_ids]

        found = await asyncio.gather(*map(one, prompts))
        await served.engine.close()
        return list(found)

    return asyncio.run(ours())


def test_the_answers_are_no_trivial_ones(expected: list[list[int]]) -> None:
    assert len(LENGTHS) >= 20
    assert len({tuple(answer) for answer in expected}) == len(LENGTHS)
    assert sum(len(set(answer)) > 3 for answer in expected) > len(LENGTHS) / 2


def test_plain(small_folder: Path, prompts: list[list[int]], expected: list[list[int]]) -> None:
    with vllm(small_folder) as llm:
        assert answers(llm, prompts) == expected
        assert [answers(llm, [prompt])[0] for prompt in prompts[:4]] == expected[:4]


def test_in_chunks_and_from_shared_beginnings(
    small_folder: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    with vllm(small_folder, enable_prefix_caching=True, max_num_batched_tokens=48) as llm:
        assert answers(llm, prompts) == expected
        params = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True, detokenize=False)
        again = generated(llm, [{"prompt_token_ids": ids} for ids in prompts], params)
        assert [list(each.outputs[0].token_ids) for each in again] == expected
        hits = dict(zip(LENGTHS, (each.num_cached_tokens for each in again), strict=True))
        assert all(hits[size] >= BLOCK for size in LENGTHS if size > 2 * BLOCK), hits
        longer = [*prompts[-1], 7, 8, 9]  # goes on behind what is known
        (found,) = generated(llm, [{"prompt_token_ids": longer}], params)
        assert found.num_cached_tokens >= BLOCK
        fresh = [{"prompt_token_ids": longer, "cache_salt": "another"}]
        assert generated(llm, fresh, params)[0].outputs[0].token_ids == found.outputs[0].token_ids


def test_compiled(small_folder: Path, prompts: list[list[int]], expected: list[list[int]]) -> None:
    with vllm(small_folder, enforce_eager=False) as llm:
        assert answers(llm, prompts) == expected


def test_two_processes_share_each_layer(
    small_folder: Path,
    prompts: list[list[int]],
    expected: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
    settings = {"tensor_parallel_size": 2, "enable_prefix_caching": True}
    with vllm(small_folder, max_num_batched_tokens=48, **settings) as llm:
        assert answers(llm, prompts) == expected
        assert answers(llm, prompts) == expected


@pytest.mark.parametrize("model", ["tiny-a", "tiny-b"])
def test_recorded_answers(golden_dir: Path, tmp_path: Path, model: str) -> None:
    golden = golden_dir / "yuan2" / model
    cases = json.loads((golden / "greedy.json").read_text())
    with vllm(widened_folder(golden, tmp_path)) as llm:
        for case in cases:
            recorded = case["continuation_ids"]
            assert answers(llm, [case["prompt_ids"]], len(recorded)) == [recorded]


def test_text_needs_no_remote_code(small_folder: Path) -> None:
    """vLLM finds the config and the tokenizer by itself, as `vllm serve` does."""
    with vllm(small_folder, skip_tokenizer_init=False) as llm:
        ids = llm.get_tokenizer().encode_ids("你好 hello")
        params = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True)
        (found,) = generated(llm, ["你好 hello"], params)
        assert found.prompt_token_ids == ids
        text = llm.get_tokenizer().decode(found.outputs[0].token_ids, skip_special_tokens=True)
        assert found.outputs[0].text == text
