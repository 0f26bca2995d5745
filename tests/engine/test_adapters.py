"""Adapters beside one base, each request with its own: as if each were merged and alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from peft import LoraConfig, get_peft_model

from fastchat.engine.base import GenerationRequest, SamplingParams
from fastchat.engine.loading import load_served_model
from fastchat.engine.served import ServedModel
from fastchat.engine.settings import EngineSettings
from fastchat.errors import CheckpointError, RequestError
from fastchat.model import YuanForCausalLM

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
ASKED = SamplingParams(temperature=0.0, max_new_tokens=12, ignore_eos=True)
FILTER = ["conv1", "conv2"]
KINDS: dict[str, dict[str, object]] = {
    "all": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]},
    "keys": {"target_modules": ["k_proj", "gate_proj"], "r": 3, "use_rslora": True},
    "filter": {"target_modules": FILTER, "r": 2},
}


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters with weights that show, saved by peft itself."""
    found = {}
    for seed, (name, options) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        model = YuanForCausalLM.from_pretrained(tiny_folder)
        model.name_or_path = str(tiny_folder)
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for parameter_name, parameter in adapted.named_parameters():
                if "lora_" in parameter_name:
                    parameter.normal_(std=0.3)
        found[name] = tmp_path_factory.mktemp(name)
        adapted.save_pretrained(found[name])
    return found


@pytest_asyncio.fixture
async def served(tiny_folder: Path) -> AsyncIterator[ServedModel]:
    settings = EngineSettings(cache_tokens=1024, threads=1)
    served = load_served_model(str(tiny_folder), device="cpu", engine=settings)
    yield served
    await served.engine.close()


async def answer(served: ServedModel, adapter: str | None = None) -> list[int]:
    request = GenerationRequest(PROMPT, ASKED, adapter=adapter)
    return [token async for e in served.engine.generate(request) for token in e.token_ids]


async def merged_answer(folder: Path, *, batched: bool) -> list[int]:
    settings = EngineSettings(cache_tokens=1024, threads=1, batched=batched)
    served = load_served_model(str(folder), device="cpu", engine=settings)
    try:
        return await answer(served)
    finally:
        await served.engine.close()


async def test_each_request_has_its_own(served: ServedModel, adapters: dict[str, Path]) -> None:
    base = await answer(served)
    for name, folder in adapters.items():
        await served.engine.load_adapter(name, str(folder))
    expected = {name: await merged_answer(path, batched=False) for name, path in adapters.items()}
    assert len({tuple(ids) for ids in (base, *expected.values())}) == 4
    asked = [None, *adapters, None, *adapters]
    found = await asyncio.gather(*(answer(served, name) for name in asked))
    assert found == [base if name is None else expected[name] for name in asked]
    assert served.engine.stats().cache_usage == 0


async def test_a_folder_of_an_adapter_is_its_base_with_the_adapter_merged(
    adapters: dict[str, Path],
) -> None:
    for folder in adapters.values():
        assert await merged_answer(folder, batched=True) == await merged_answer(
            folder, batched=False
        )


async def test_unloading_lets_those_finish_that_have_begun(
    served: ServedModel, adapters: dict[str, Path]
) -> None:
    await served.engine.load_adapter("a", str(adapters["all"]))
    expected = await answer(served, "a")
    request = GenerationRequest(PROMPT, ASKED, adapter="a")
    events = served.engine.generate(request)
    first = await anext(events)
    unloading = asyncio.create_task(served.engine.unload_adapter("a"))
    await served.engine.embed([[5]])
    assert list(served.engine.adapters) == []
    with pytest.raises(RequestError, match="No adapter named a"):
        await answer(served, "a")
    assert not unloading.done()
    rest = [token async for event in events for token in event.token_ids]
    assert [*first.token_ids, *rest] == expected
    await unloading
    # The name can be given again, to another adapter: nothing of the first is found.
    await served.engine.load_adapter("a", str(adapters["keys"]))
    assert await answer(served, "a") == await merged_answer(adapters["keys"], batched=False)


async def test_what_cannot_be_loaded_says_why(
    served: ServedModel, adapters: dict[str, Path], tmp_path: Path
) -> None:
    await served.engine.load_adapter("a", str(adapters["all"]))
    with pytest.raises(RequestError, match="loaded already"):
        await served.engine.load_adapter("a", str(adapters["keys"]))
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        await served.engine.load_adapter("b", str(tmp_path))
    with pytest.raises(RequestError, match="loaded are: a"):
        await served.engine.unload_adapter("b")
    config = (adapters["all"] / "adapter_config.json").read_text()
    for file in adapters["all"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "adapter_config.json").write_text(
        config.replace('"use_dora": false', '"use_dora": true')
    )
    with pytest.raises(CheckpointError, match="use_dora"):
        await served.engine.load_adapter("b", str(tmp_path))
