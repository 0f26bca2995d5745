"""What a worker refuses before vLLM is started, in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh has it")

from fastchat.errors import CheckpointError, SettingsError
from fastchat.on_vllm.loading import load_served_model
from tests.vllm.conftest import FLAGS


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--quantization", "fp8"], "--quantization is 'fp8'"),
        (["--tensor-parallel-size", "3"], "4 attention heads"),
        (["--max-model-len", "100000"], "vLLM refuses these settings"),
    ],
)
def test_settings_are_refused_in_a_sentence(
    small_folder: Path, flags: list[str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        load_served_model(str(small_folder), [*FLAGS, *flags])


def test_a_missing_shard_is_told(small_folder: Path, tmp_path: Path) -> None:
    for file in small_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    index = '{"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00002"):
        load_served_model(str(tmp_path), FLAGS)
