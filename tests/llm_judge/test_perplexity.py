"""The loss that the engine tells is the loss that the network has."""

from __future__ import annotations

import json

import pytest
import torch

from fastchat.data.reader import read_samples
from fastchat.data.rows import LossMode, RowBuilder
from fastchat.errors import DataError
from fastchat.llm_judge import perplexity
from fastchat.model.model_adapter import get_chat_renderer, load_model
from tests.llm_judge.conftest import status_of, write_lines


def talk(*texts):
    roles = ("human", "gpt")
    turns = [{"from": roles[at % 2], "value": text} for at, text in enumerate(texts)]
    return {"id": texts[0], "conversations": turns}


def test_it_is_the_networks_loss(tmp_path, tiny_folder, capsys):
    data = tmp_path / "held-out.jsonl"
    long = "word " * 200
    write_lines(data, [talk("Hi", "Hello!", "Who?", "Yuan."), talk("你好", "好"), talk(long, "x")])
    flags = ["--model-path", str(tiny_folder), "--device", "cpu", "--dtype", "float32"]
    flags += ["--threads", "1", "--json"]
    assert status_of(perplexity.main, [*flags, "--data", str(data)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answers"], told["too_long"]) == (3, 1)

    model, tokenizer = load_model(str(tiny_folder), device="cpu", dtype="float32")
    renderer = get_chat_renderer(tokenizer, str(tiny_folder))
    builder = RowBuilder(renderer, LossMode.SPLIT_EXAMPLE, 127)
    nats, tokens = 0.0, 0
    for rows in builder.rows(read_samples(data)):
        for row in filter(None, rows):
            ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
            with torch.inference_mode():
                loss = model(input_ids=ids, labels=labels).loss.item()
            nats, tokens = nats + loss * row.learned, tokens + row.learned
    assert told["tokens"] == tokens
    assert told["loss"] == pytest.approx(nats / tokens, rel=1e-4)

    write_lines(data, [talk(long, "x")])
    with pytest.raises(DataError, match="no answer that fits"):
        perplexity.main([*flags, "--data", str(data)])
