"""The planner against the published table and itself, and what comes out of it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchat.errors import CheckpointError, SettingsError, UnsupportedModelError
from fastchat.model import YuanForCausalLM
from fastchat.train.memory.search import GIB, MARGIN, candidates, estimate, plan
from fastchat.train.memory.setup import PlanSpec, Setup
from fastchat.train.memory.shape import PUBLISHED, find_shape
from fastchat.train.memory.zero import deepspeed_settings, settings_file
from fastchat.train.plan import main
from fastchat.train.settings import parse_settings

ROOT = Path(__file__).parents[2]


def test_published_sizes_are_the_published_totals():
    totals = {name: round(shape.parameters / 1e9, 1) for name, shape in PUBLISHED.items()}
    assert totals == {"2b": 2.1, "51b": 51.8, "102b": 102.6}


# Like for like with what was measured elsewhere.

TABLE = {  # GiB, from the guide of FastChat's Yuan2 support
    ("2b", "full", 2048): 16,
    ("51b", "lora", 2048): 43,
    ("102b", "lora", 2048): 45,
    ("2b", "full", 1024): 15,
    ("51b", "lora", 1024): 43,
    ("102b", "lora", 1024): 42,
    ("2b", "qlora", 1024): 4.5,
}


def needed(row: tuple[str, str, int], *, upstream: bool) -> float:
    """GiB that the planner counts for a row of the table."""
    model, mode, length = row
    spec = PlanSpec(
        shape=PUBLISHED[model],
        gpus=1 if mode == "qlora" else 8,
        memory=48,
        mode=mode,
        max_length=length,
        upstream=upstream,
    )
    zero = {"full": 2, "lora": 3, "qlora": 0}[mode]
    setup = Setup(spec=spec, zero=zero, offload="none", batch_size=1, gradient_checkpointing=True)
    return estimate(setup).total / GIB


@pytest.mark.parametrize("upstream", [True, False])
@pytest.mark.parametrize("row", [row for row in TABLE if row[0] == "2b"])
def test_near_the_guides_table(row, upstream):
    assert needed(row, upstream=upstream) == pytest.approx(TABLE[row], rel=0.2)


@pytest.mark.parametrize("row", [row for row in TABLE if row[0] != "2b"])
def test_at_most_the_guides_table(row):
    assert needed(row, upstream=False) <= TABLE[row]
    assert needed(row, upstream=True) <= TABLE[row]


def test_the_docs_have_these_numbers():
    text = (ROOT / "docs" / "planning.md").read_text("utf-8")
    for row, figure in TABLE.items():
        ours, theirs = (f"{needed(row, upstream=upstream):.1f}" for upstream in (False, True))
        assert f"| {row[2]} | {figure} | {theirs} | {ours} |" in text


# What has to hold for any plan.

SPECS = st.builds(
    PlanSpec,
    shape=st.sampled_from(list(PUBLISHED.values())),
    gpus=st.sampled_from([1, 2, 8, 64]),
    memory=st.sampled_from([8.0, 24.0, 48.0, 80.0]),
    mode=st.sampled_from(["full", "lora", "qlora"]),
    max_length=st.sampled_from([512, 2048]),
    mean_length=st.sampled_from([None, 120]),
)


@settings(max_examples=60, deadline=None)
@given(SPECS)
def test_a_plan_is_the_first_that_fits(spec):
    found = plan(spec)
    limit = spec.memory * GIB * (1 - MARGIN)
    ways = list(candidates(spec))
    first = next((way for way in ways if estimate(way).total <= limit), None)
    assert found.fits == (first is not None)
    if first is not None:
        assert found.best.setup == first
    assert all(item.total > limit for item in found.rejected)
    if found.gpus_needed is not None:
        assert found.gpus_needed > spec.gpus


@settings(max_examples=60, deadline=None)
@given(SPECS, st.data())
def test_memory_grows_with_what_is_asked(spec, data):
    setup = data.draw(st.sampled_from(list(candidates(spec))))

    def other(**changes):
        fields = {name: getattr(spec, name) for name in spec.__slots__} | changes.pop("spec", {})
        fields["global_batch_size"] = 10**6  # always accumulate
        ways = {name: getattr(setup, name) for name in setup.__slots__} | changes
        return estimate(Setup(**ways | {"spec": PlanSpec(**fields)})).total

    here = other()
    assert other(spec={"max_length": 4096}) >= here
    assert other(batch_size=setup.batch_size * 2) >= here
    assert other(gradient_checkpointing=True) <= other(gradient_checkpointing=False)
    if setup.zero:
        assert other(spec={"gpus": 128}) <= other(spec={"gpus": 64})


def test_a_stage_cuts_more_than_the_one_below():
    spec = PlanSpec(shape=PUBLISHED["51b"], gpus=8, memory=80)
    totals = [
        estimate(
            Setup(spec=spec, zero=z, offload="none", batch_size=1, gradient_checkpointing=True)
        ).total
        for z in (0, 1, 2, 3)
    ]
    assert totals == sorted(totals, reverse=True)


# What comes out can be used.


@pytest.mark.parametrize("way", [(2, "none"), (2, "optimizer"), (3, "all")])
def test_settings_are_those_of_the_named_file(way):
    name = settings_file(*way)
    assert name is not None
    assert json.loads((ROOT / name).read_text("utf-8")) == deepspeed_settings(*way)


@pytest.mark.parametrize(
    "argv",
    [
        "--model 2b --gpus 8 --memory 24 --mode full",
        "--model 51b --gpus 8 --memory 48 --mode lora --lora_target_modules all filter",
        "--model 102b --gpus 16 --memory 80 --mode full",
        "--model 2b --gpus 1 --memory 12 --mode qlora --mean-length 120",
    ],
)
def test_the_trainer_takes_the_command(argv, capsys):
    assert main(shlex.split(argv)) == 0
    text = capsys.readouterr().out
    assert "fits" in text
    command = text[text.index("fastchat/train/train_") :].replace("\\\n", " ")
    entry, *flags = shlex.split(command)
    found = parse_settings(flags, lora=entry.endswith("train_lora.py"))
    assert found.model.model_name_or_path == "MODEL"
    assert found.training["bf16"]


def test_json_says_what_the_text_says(capsys):
    argv = shlex.split("--model 2b --gpus 8 --memory 48 --zero 2 --batch_size 1 --json")
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True
    assert found["total_bytes"] == sum(part["bytes"] for part in found["parts"])
    assert found["flags"]["deepspeed"] == "playground/zero2_ds_woloading.json"
    assert found["gradient_accumulation_steps"] == 16


def test_nothing_fits(capsys):
    assert main(shlex.split("--model 102b --gpus 1 --memory 8 --mode qlora")) == 1
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "torchrun" not in text


def test_reads_a_models_folder(golden_dir):
    folder = golden_dir / "yuan2" / "tiny-a"
    shape = find_shape(str(folder))
    model = YuanForCausalLM.from_pretrained(folder)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", CheckpointError, "cannot be read as JSON"),
        ("[]", CheckpointError, "does not hold a JSON object"),
        ('{"model_type": "llama"}', UnsupportedModelError, "'llama' network"),
        ('{"model_type": "yuan", "use_moe": true}', UnsupportedModelError, "with use_moe"),
        ('{"model_type": "yuan"}', CheckpointError, "hidden_size: None"),
    ],
)
def test_a_folder_that_cannot_be_planned_for(tmp_path, content, error, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(error, match=message):
        find_shape(str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--model 7b --memory 8", "neither 2b, 51b, 102b nor a folder"),
        ("--model 2b --memory 0", "--memory is 0.0; a number of GiB above 0"),
        ("--model 2b --memory 8 --mode qlora --zero 3", "neither with ZeRO-3"),
        ("--model 2b --memory 8 --zero 0 --offload optimizer", "--zero 1 or 2 or 3"),
        ("--model 2b --memory 8 --mean-length 2000", "at most the longest row, 1024"),
        ("--model 2b --memory 8 --mode lora --lora-target-modules wq", "'wq'; known are q_proj"),
    ],
)
def test_what_cannot_be_planned_is_an_error(argv, message, capsys):
    assert main(shlex.split(argv)) == SettingsError.exit_status
    assert message in capsys.readouterr().err


def test_loads_nothing_heavy():
    probe = (
        "import sys; from fastchat.train.plan import main;"
        " main(['--model', '2b', '--memory', '48']);"
        " assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True, capture_output=True)
