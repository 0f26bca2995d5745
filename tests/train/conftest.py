"""A tiny Yuan2 with a real tokenizer, conversations, and a way to train on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import fastchat
from fastchat.chat import YuanChatRenderer
from fastchat.data.dataset import row_builder
from fastchat.data.reader import read_samples
from fastchat.data.rows import LossMode, Row
from fastchat.model import YuanConfig, YuanForCausalLM, YuanTokenizer, load_tokenizer
from fastchat.train.run import train

_DEMO = Path(fastchat.__file__).parent / "demo" / "checkpoint" / "tokenizer.model"

TALKS: list[list[str]] = [
    ["你是谁?", "我是源2.0。", "再见", "再见!"],
    ["Who are you?", "I am Yuan, a small model.", "What can you do?", "Chat.", "Bye", "Bye!"],
    ["1+1=?", "2"],
    ["Tell me a story.", "Once upon a time there was a model; it learned, and all was well."],
]

OTHER_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '[' + message['role'] + '] ' + message['content'] | trim + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '[assistant] ' }}{%- endif -%}"
)
"""A chat template as models other than Yuan2 have them, with names of roles in it."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if _DEMO.exists():
        vocabulary = _DEMO
    elif folder := os.environ.get("YUAN2_TOKENIZER"):
        vocabulary = Path(folder) / "tokenizer.model"
    else:
        pytest.skip("needs a Yuan2 tokenizer: set YUAN2_TOKENIZER to the published one's folder")
    tokenizer = YuanTokenizer(str(vocabulary))
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    model = YuanForCausalLM(
        YuanConfig(
            vocab_size=len(tokenizer) + 10,  # rows beyond the vocabulary, as published
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    path = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def talks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "talks.json"
    return write_talks(path, TALKS)


def write_talks(path: Path, talks: Sequence[Sequence[str]]) -> Path:
    items = [
        {
            "id": f"talk_{number}",
            "conversations": [
                {"from": ("human", "gpt")[index % 2], "value": text}
                for index, text in enumerate(talk)
            ],
        }
        for number, talk in enumerate(talks)
    ]
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return path


def split_rows(model: Path, data: Path) -> list[Row]:
    """The rows of a data file as a server feeds them, without any merging."""
    tokenizer = load_tokenizer(model)
    renderer = YuanChatRenderer(tokenizer)
    builder = row_builder(tokenizer, renderer, LossMode.SPLIT_EXAMPLE, 512)
    rows = [
        builder.row(sample, target)
        for sample in read_samples(data)
        for target in builder.targets(sample)
    ]
    return [row for row in rows if row is not None]


Train = Callable[..., dict[str, float]]


def train_quietly(
    callbacks: Sequence[Any] = (), *, lora: bool = False, **flags: Any
) -> dict[str, float]:
    """Trains with few words; a list gives a flag several values."""
    values = {
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        **flags,
    }
    argv = []
    for name, value in values.items():
        argv += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return train(argv, callbacks, lora=lora)


@pytest.fixture
def fine_tune(tiny_model: Path, talks_file: Path, tmp_path: Path) -> Train:
    """Trains the tiny model quietly; keywords are flags, and win over the ones here."""

    def run(callbacks: Sequence[Any] = (), *, lora: bool = False, **flags: Any) -> dict[str, float]:
        values = {
            "model_name_or_path": tiny_model,
            "data_path": talks_file,
            "output_dir": tmp_path / "out",
            **flags,
        }
        return train_quietly(callbacks, lora=lora, **values)

    return run
