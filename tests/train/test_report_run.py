"""What watches a run, in a real Trainer with a model of two numbers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from fastchat.chat import YuanChatRenderer
from fastchat.data.sample import Sample
from fastchat.model import YuanForCausalLM, load_tokenizer
from fastchat.train.arguments import TrainingArguments
from fastchat.train.report.answering import greedy_answers
from fastchat.train.report.metrics_file import MetricsWriter, append, as_line, cut_after, read_lines
from fastchat.train.report.progress import ProgressLine, figures_in_words
from fastchat.train.report.samples import (
    Question,
    SampleWriter,
    last_questions,
    read_answers,
)
from fastchat.train.report.throughput import Throughput
from fastchat.train.report.watching import install, report_callbacks, settings_shown
from fastchat.train.settings import parse_settings
from fastchat.train.stopping import prepare_stopping
from fastchat.train.trackers import choose_trackers


class Slope(nn.Module):
    """y = a x + b, asked for with the loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        guess = self.line(x[:, None])[:, 0]
        return {"loss": (guess - labels).square().mean(), "logits": guess}


DATA = [{"x": float(x), "labels": 2.0 * x + 1} for x in range(4)]


def trainer(
    folder: Path, callbacks: Sequence[TrainerCallback] = (), *, data: Any = DATA, **values: Any
) -> Trainer:
    torch.manual_seed(0)
    args = TrainingArguments(
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "max_steps": 6,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 0.1,
            "per_device_train_batch_size": 4,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            **values,
        }
    )
    made = Trainer(Slope(), args, train_dataset=data, eval_dataset=DATA, callbacks=[*callbacks])
    made.remove_callback(PrinterCallback)
    return made


class Stop(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= state.global_step == self.step


def figures(path: Path) -> list[dict[str, Any]]:
    """The lines without the times, which differ from run to run."""
    return [
        {name: value for name, value in line.items() if "time" not in name and "per" not in name}
        for line in read_lines(path)
    ]


def test_every_log_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    run = trainer(
        tmp_path, [MetricsWriter(path, clock=lambda: 12.3456)], eval_strategy="steps", eval_steps=3
    )
    run.train()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(run.state.log_history) == 9
    for line, log in zip(lines, run.state.log_history, strict=True):
        assert line == log | {"time": 12.346}
    assert [line["step"] for line in lines if "eval_loss" in line] == [3, 6]
    assert {"loss", "learning_rate", "grad_norm"} <= lines[0].keys()


def test_a_resumed_run_reads_as_one_that_never_stopped(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trainer(whole, [MetricsWriter(whole / "m")], **saving).train()
    trainer(cut, [MetricsWriter(cut / "m"), Stop(5)], **saving).train()
    with (cut / "m").open("ab") as file:
        file.write(b'{"step": 5, "lo')  # killed while it wrote
    checkpoint = str(cut / "checkpoint-4")
    trainer(cut, [MetricsWriter(cut / "m")], **saving).train(resume_from_checkpoint=checkpoint)
    # The mean over a run is over the steps of the last start only.
    ours, theirs = figures(cut / "m"), figures(whole / "m")
    assert [line | {"train_loss": 0} for line in ours] == [
        line | {"train_loss": 0} for line in theirs
    ]


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    for _ in range(2):
        trainer(tmp_path, [MetricsWriter(tmp_path / "m")]).train()
    assert [line["step"] for line in read_lines(tmp_path / "m")] == [1, 2, 3, 4, 5, 6, 6]


def test_what_is_no_number_is_null_and_named() -> None:
    line = as_line({"loss": math.nan, "grad_norm": math.inf, "lr": 1.0, "epoch": 0.5}, 3, 7.0)
    assert line == {
        "step": 3,
        "epoch": 0.5,
        "time": 7.0,
        "loss": None,
        "grad_norm": None,
        "lr": 1.0,
        "nonfinite": ["loss", "grad_norm"],
    }


def test_cutting_keeps_the_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for step in range(1, 6):
        append(path, {"step": step, "text": "好 \ud800"})
    cut_after(path, 3)
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]
    assert read_lines(path)[0]["text"] == "好 \ud800"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]
    cut_after(tmp_path / "missing", 3)
    assert not (tmp_path / "missing").exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    asked = []

    def generate(prompts: list[list[int]]) -> list[str]:
        asked.append(prompts)
        return [""] * len(prompts)

    question = Question("a", "?", [1], "!")
    run = trainer(
        tmp_path / "out",
        [
            MetricsWriter(tmp_path / "m"),
            ProgressLine(stream),
            SampleWriter(tmp_path / "s", [question], generate),
        ],
    )
    run.state.is_world_process_zero = False
    for callback in run.callback_handler.callbacks[-3:]:
        callback.on_train_begin(run.args, run.state, run.control)
        if not isinstance(callback, SampleWriter):
            callback.on_log(run.args, run.state, run.control, logs={"loss": 1.0})
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "s").exists()
    assert stream.getvalue() == ""
    assert asked == [[[1]]], "weights spread over processes need all of them to generate"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_pipe_each_log_is_a_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    now = iter(range(0, 10_000, 60))
    line = ProgressLine(stream, clock=lambda: float(next(now)))
    trainer(tmp_path, [line], disable_tqdm=False, eval_strategy="steps", eval_steps=6).train()
    lines = [text for text in stream.getvalue().splitlines() if text.startswith("step")]
    assert len(lines) == 8
    assert lines[0].startswith("step 1/6 | loss ")
    assert lines[0].endswith("| 5:00 left")
    assert "| lr 0.1 | grad norm " in lines[0]
    assert lines[-2].startswith("step 6/6 | evaluation loss ")
    assert lines[-1].startswith("step 6/6 | trained for 0:")


def test_on_a_terminal_one_line_renews_itself(tmp_path: Path) -> None:
    stream = Terminal()
    run = trainer(
        tmp_path, [ProgressLine(stream)], disable_tqdm=False, eval_strategy="steps", eval_steps=3
    )
    run.remove_callback(ProgressCallback)
    run.train()
    drawn = stream.getvalue()
    assert "6/6" in drawn
    assert "100%" in drawn
    assert drawn.count("step 3/6 | evaluation loss") == 1
    assert "step 1/6" not in drawn


def test_without_tqdm_a_terminal_gets_lines_too(tmp_path: Path) -> None:
    stream = Terminal()
    trainer(tmp_path, [ProgressLine(stream)], disable_tqdm=True).train()
    assert stream.getvalue().startswith("step 1/6 | loss ")


def test_rates_are_part_of_the_line() -> None:
    logs = {
        "loss": 1.23456,
        "tokens_per_second": 12345.6,
        "trained_share": 0.654,
        "padding_share": 0.031,
        "mfu": 0.4123,
    }
    assert figures_in_words(logs) == [
        "loss 1.235",
        "12.3k tokens/s",
        "65% trained",
        "3.1% padding",
        "MFU 41%",
    ]


QUESTIONS = [Question("a", "1+1?", [1, 2], "2"), Question("b", "再见", [3], "再见!")]


def counting() -> Callable[[list[list[int]]], list[str]]:
    numbers = iter(range(1000))
    return lambda prompts: [f"answer {next(numbers)} to {prompt}" for prompt in prompts]


def test_questions_are_asked_at_the_start_at_evaluations_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    writer = SampleWriter(path, QUESTIONS, counting())
    run = trainer(tmp_path, [writer], eval_strategy="steps", eval_steps=4)
    run.train()
    run.evaluate()  # at the end of a run, without being asked again
    lines = read_lines(path)
    assert [(line["step"], line["event"], line["id"]) for line in lines] == [
        (step, event, name)
        for step, event in ((0, "start"), (4, "evaluation"), (6, "evaluation"))
        for name in "ab"
    ]
    answers = read_answers(path)
    assert [answer.prompt for answer in answers] == ["1+1?", "再见"]
    assert [answer.reference for answer in answers] == ["2", "再见!"]
    assert answers[0].before == "answer 0 to [1, 2]"
    assert answers[0].after == "answer 4 to [1, 2]"


def test_the_end_is_asked_where_no_evaluation_was(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    trainer(tmp_path, [SampleWriter(path, QUESTIONS[:1], counting())]).train()
    assert [(line["step"], line["event"]) for line in read_lines(path)] == [
        (0, "start"),
        (6, "end"),
    ]


def test_a_resumed_run_keeps_the_answers_before_it(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    saving = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    first = [SampleWriter(path, QUESTIONS[:1], counting()), Stop(4)]
    trainer(tmp_path, first, **saving).train()
    again = trainer(tmp_path, [SampleWriter(path, QUESTIONS[:1], counting())], **saving)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [line["step"] for line in read_lines(path)] == [0, 2, 4, 6]


def test_without_a_file_there_are_no_answers(tmp_path: Path) -> None:
    assert read_answers(tmp_path / "samples.jsonl") == []
    append(tmp_path / "s", {"question": 0, "prompt": "?", "reference": "!", "answer": "a"})
    assert read_answers(tmp_path / "s")[0].before is None


def test_a_model_answers_its_last_questions(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    model = YuanForCausalLM.from_pretrained(tiny_model).train()
    talk = (
        ("system", "You are Yuan."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Bye"),
        ("assistant", "Bye!"),
    )
    samples = [
        Sample("empty", ()),
        Sample("talk", tuple({"role": role, "content": text} for role, text in talk)),
        Sample("more", tuple({"role": role, "content": text} for role, text in talk[1:3])),
    ]
    renderer = YuanChatRenderer(tokenizer)
    (question,) = last_questions(samples, renderer, 1)
    assert (question.id, question.prompt, question.reference) == ("talk", "Bye", "Bye!")
    assert question.prompt_ids == renderer.render(samples[1].messages[:-1]).ids
    assert len(last_questions(samples, renderer, 9)) == 2

    other = renderer.render([{"role": "user", "content": "再见"}]).ids
    generate = greedy_answers(model, tokenizer, max_new_tokens=4)
    together = generate([question.prompt_ids, list(other)])
    assert together == [*generate([question.prompt_ids]), *generate([list(other)])]
    assert all(isinstance(text, str) for text in together)
    assert model.training


def test_a_run_stops_when_the_evaluation_loss_does_not_fall(tmp_path: Path) -> None:
    values = {"early_stopping_patience": 2, "eval_steps": 1, "learning_rate": 0.0}
    prepare_stopping(values, evaluates=True)
    run = trainer(
        tmp_path,
        save_strategy=values.pop("save_strategy"),
        max_steps=9,
        **{name: value for name, value in values.items() if name != "save_strategy"},
    )
    install(run, progress=False)
    run.train()
    assert run.state.global_step == 3
    assert run.state.best_global_step == 1
    assert (tmp_path / "metrics.jsonl").exists()


def test_installing_replaces_transformers_progress(tmp_path: Path) -> None:
    run = trainer(tmp_path, disable_tqdm=False)
    install(run, questions=QUESTIONS, generate=counting())
    kinds = [type(callback) for callback in run.callback_handler.callbacks]
    assert {MetricsWriter, ProgressLine, SampleWriter} <= set(kinds)
    assert not {ProgressCallback, PrinterCallback} & set(kinds)
    assert [type(callback) for callback in report_callbacks(run.args, progress=False)] == [
        MetricsWriter
    ]


def test_time_counts_from_the_first_step_on(tmp_path: Path) -> None:
    now = iter(range(100))
    meter = Throughput(clock=lambda: float(next(now)))  # 0: made
    meter.add(1, 1, 1)
    run = trainer(tmp_path, max_steps=2)
    install(run, progress=False, throughput=meter)
    run.train()  # 1: started, and what was counted before is forgotten
    meter.add(10, 5, 1)
    assert meter.rates()["tokens_per_second"] == 10  # 2


def test_a_tracker_is_told_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[str, Any] = {}
    choose_trackers(values)
    run = trainer(tmp_path, **values)
    install(run, progress=False)
    run.train()
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    logged = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(logged)


def test_what_a_run_was_told_is_shown_by_flag() -> None:
    argv = ["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o", "--lora_r", "4"]
    shown = settings_shown(parse_settings([*argv, "--bf16"], lora=True))
    expected = {"model_name_or_path": "m", "data_path": "d", "output_dir": "o", "lora_r": 4}
    assert expected.items() <= shown.items()
    assert shown["bf16"] is True
