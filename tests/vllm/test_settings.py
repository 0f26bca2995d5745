"""What is refused before vLLM starts, and the weights' way into it. Needs no vLLM."""

from __future__ import annotations

import argparse
import os

import pytest
import torch
from einops import rearrange

from fastchat.errors import CheckpointError, SettingsError
from fastchat.on_vllm.fit import check_fit, check_gpus
from fastchat.on_vllm.versions import unfit_reason
from fastchat.on_vllm.weights import for_vllm, regrouped
from fastchat.serve import vllm_worker


@pytest.mark.parametrize("found", ["0.32.0", "0.32.1", "0.32.0+cu129", "0.32.0.post1"])
def test_tested_releases_are_taken(found):
    assert unfit_reason(found) is None


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "not installed"),
        ("0.31.9", "too old"),
        ("0.32.0rc1", "too old"),
        ("0.33.0", "too new"),
        ("1.0", "too new"),
    ],
)
def test_other_releases_are_refused_with_the_tested_range(found, problem):
    reason = unfit_reason(found)
    assert reason is not None
    assert problem in reason
    assert "0.32.0 or newer, older than 0.33" in reason
    assert reason.count(". ") == 0, "one sentence"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quantization": "fp8"}, "--quantization is 'fp8'"),
        ({"tensor_parallel": 3}, "4 attention heads.* 3 GPUs.*one of 1, 2, 4;"),
        ({"tensor_parallel": 8}, "8 GPUs"),
        ({"drafts": 2}, "speculative"),
    ],
)
def test_what_the_network_cannot_do_is_refused(settings, named):
    fine = {"heads": 4, "tensor_parallel": 2, "quantization": None}
    check_fit(**fine)
    with pytest.raises(SettingsError, match=named):
        check_fit(**(fine | settings))


def test_too_few_gpus_are_told(monkeypatch):
    check_gpus(wanted=4, found=4)
    with pytest.raises(SettingsError, match=r"ask for 4 GPUs.* has 1"):
        check_gpus(wanted=4, found=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SettingsError, match="--gpus names 0,1, fewer than the 4"):
        vllm_worker.prepare_environment("0,1", 4)


def test_gpus_are_handed_on(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    vllm_worker.prepare_environment("2,3", 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def flags(line: str) -> tuple[argparse.Namespace, list[str]]:
    return vllm_worker.parser().parse_known_args(line.split())


def test_fastchats_flags_are_the_workers_and_the_rest_is_vllms():
    args, rest = flags(
        "--model-path M --num-gpus 2 --gpu_memory_utilization 0.8 --trust_remote_code"
        " --max-model-len 512 --worker-cls auto --limit-worker-concurrency 7"
    )
    assert (args.model_path, args.num_gpus, args.limit_worker_concurrency) == ("M", 2, 7)
    expected = (
        "--gpu_memory_utilization 0.8 --trust_remote_code --max-model-len 512 --worker-cls auto"
    )
    assert " ".join(rest) == expected


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("--model", "model_path"),
        ("--worker", "worker_address"),
        ("--controller", "controller_address"),
        ("--model-name", "model_names"),
    ],
)
def test_shortened_flags_mean_what_they_meant(short, name):
    args, rest = flags(f"--model-path M {short} X")
    assert getattr(args, name) in ("X", ["X"])
    assert rest == []


HIDDEN, HEADS, HEAD_DIM = 12, 3, 4


@pytest.mark.parametrize("turned", [False, True])
def test_heads_are_regrouped_as_the_published_network_reads_them(turned):
    """The outputs of both matrices side by side, cut into query, key, query, key, ..."""
    states = torch.randn(5, HIDDEN, dtype=torch.float64)
    query, key = (torch.randn(HIDDEN, HIDDEN, dtype=torch.float64) for _ in "qk")
    blocks = torch.cat([states @ query.T, states @ key.T], dim=-1).split(HEAD_DIM, dim=-1)
    found = [("a.self_attn.q_proj.weight", query), ("a.self_attn.k_proj.weight", key)]
    told = dict(for_vllm(found[::-1] if turned else found, HEAD_DIM))
    for name, first in (("q", 0), ("k", 1)):
        heads = rearrange(
            states @ told[f"a.self_attn.{name}_proj.weight"].T, "t (n d) -> n t d", n=HEADS
        )
        for head in range(HEADS):
            torch.testing.assert_close(heads[head], blocks[2 * head + first])


def test_a_part_of_the_heads_needs_the_rows_of_these_only():
    query, key = torch.randn(8, 8), torch.randn(8, 8)
    whole = regrouped(query, key, 2)
    mixed = torch.cat([query, key]).split(2)
    for matrix, first in zip(whole, (0, 1), strict=True):
        assert torch.equal(matrix[4:], torch.cat([mixed[4 + first], mixed[6 + first]]))


def test_convolutions_become_matrices_over_pairs():
    weight = torch.randn(3, 6, 2, 1)
    ((_, matrix),) = for_vllm([("x.lf_gate.conv1.weight", weight)], 2)
    before, now = torch.randn(6), torch.randn(6)
    expected = weight[:, :, 0, 0] @ before + weight[:, :, 1, 0] @ now
    torch.testing.assert_close(matrix @ torch.stack([before, now], dim=-1).flatten(), expected)


def test_a_matrix_without_its_partner_is_missed():
    with pytest.raises(CheckpointError, match=r"a\.self_attn\.k_proj\.weight"):
        list(for_vllm([("a.self_attn.q_proj.weight", torch.zeros(4, 4))], 2))
