"""The base model knows no answers; the project's own trainer teaches them all but all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fastchat.demo.corpus import load_conversations, unique_exchanges
from fastchat.demo.finetune import (
    StopWhenLearned,
    answer_all,
    base_folder,
    count_exact,
    finetune_arguments,
)
from fastchat.model.model_adapter import get_chat_renderer, load_model
from fastchat.train.train_yuan2 import train


def test_the_checkpoint_is_small() -> None:
    assert sum(file.stat().st_size for file in base_folder().iterdir()) < 4_000_000


def test_the_base_model_knows_no_answers() -> None:
    model, tokenizer = load_model(str(base_folder()), device="cpu")
    renderer = get_chat_renderer(tokenizer, str(base_folder()))
    exchanges = unique_exchanges(load_conversations())
    assert count_exact(model, tokenizer, renderer, exchanges) < 0.05 * len(exchanges)
    contexts = [exchange.context for exchange in exchanges[::10]]
    assert any(answer_all(model, tokenizer, renderer, contexts))  # it does write


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fine_tuning_teaches_the_answers(tmp_path: Path) -> None:
    losses: list[float] = []
    stop = StopWhenLearned(time_limit_s=1000, report=lambda _step, _of, loss: losses.append(loss))
    train(finetune_arguments(tmp_path, seed=3), callbacks=[stop])
    assert not stop.out_of_time
    assert losses[-1] < losses[0] / 10
    model, tokenizer = load_model(str(tmp_path), device="cpu")
    renderer = get_chat_renderer(tokenizer, str(tmp_path))
    exchanges = unique_exchanges(load_conversations())
    assert count_exact(model, tokenizer, renderer, exchanges) >= 0.95 * len(exchanges)


def log(stop: StopWhenLearned, *losses: float) -> list[bool]:
    """Logs losses one by one; tells after each whether the run is to stop."""
    args = SimpleNamespace(num_train_epochs=2)
    stopped = []
    for step, loss in enumerate(losses, start=1):
        state = SimpleNamespace(max_steps=4, global_step=step)
        control = SimpleNamespace(should_training_stop=False)
        if step == 1:
            stop.on_train_begin(args, state, control)  # type: ignore[arg-type]
        stop.on_log(args, state, control, {"loss": loss})  # type: ignore[arg-type]
        stop.on_log(args, state, control, {"train_runtime": 1.0})  # type: ignore[arg-type]
        stopped.append(control.should_training_stop)
    return stopped


def test_a_whole_epoch_has_to_reach_the_target() -> None:
    means: list[float] = []
    stop = StopWhenLearned(
        target_loss=0.5, time_limit_s=1e6, report=lambda _step, _of, mean: means.append(mean)
    )
    assert log(stop, 0.1, 1.5, 0.2, 0.2) == [False, False, False, True]
    assert means == pytest.approx([0.1, 0.8, 0.85, 0.2])
    assert not stop.out_of_time


def test_the_time_limit_is_a_safety_net() -> None:
    stop = StopWhenLearned(target_loss=0.0, time_limit_s=-1.0, report=lambda *_: None)
    assert log(stop, 5.0) == [True]
    assert stop.out_of_time
