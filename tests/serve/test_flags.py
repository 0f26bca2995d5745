"""The command lines that FastChat's users type: short forms, old flags, values."""

from __future__ import annotations

import logging
import os

import pytest

from fastchat.errors import SettingsError
from fastchat.model_flags import check_model_args
from fastchat.serve import (
    cli,
    controller,
    huggingface_api,
    huggingface_api_worker,
    launch_all_serve,
    model_worker,
    multi_model_worker,
    openai_api_server,
    register_worker,
    shutdown_serve,
    test_message,
    test_throughput,
    worker_entry,
)
from fastchat.serve.model_names import model_names
from fastchat.serve.openai.limits import ApiKey
from fastchat.serve.openai.settings import AppSettings, CorsSettings, read_api_keys

MODEL = ["--model-path", "m"]
INFO = ["--model-info-file", "f"]


def options(module):
    return {flag for action in module.parser()._actions for flag in action.option_strings}


@pytest.mark.parametrize(
    ("module", "short", "full", "rest"),
    [
        (cli, "--model", "model_path", []),
        (huggingface_api, "--model", "model_path", []),
        (model_worker, "--model-name", "model_names", MODEL),
        (model_worker, "--controller", "controller_address", MODEL),
        (model_worker, "--worker", "worker_address", MODEL),
        (model_worker, "--limit", "limit_worker_concurrency", MODEL),
        (openai_api_server, "--controller", "controller_address", []),
        (register_worker, "--controller", "controller_address", ["--worker-name", "w"]),
        (register_worker, "--worker", "worker_name", ["--controller-address", "c"]),
        (test_message, "--model", "model_name", []),
        (test_message, "--controller", "controller_address", ["--model-name", "m"]),
        (test_message, "--worker", "worker_address", ["--model-name", "m"]),
        (test_throughput, "--model", "model_name", []),
        (test_throughput, "--controller", "controller_address", []),
        (test_throughput, "--worker", "worker_address", []),
        (multi_model_worker, "--controller", "controller_address", MODEL),
        (multi_model_worker, "--worker", "worker_address", MODEL),
        (huggingface_api_worker, "--model", "model_info_file", []),
        (huggingface_api_worker, "--controller", "controller_address", INFO),
        (controller, "--dispatch", "dispatch_method", []),
    ],
)
def test_short_forms_stay_unambiguous(module, short, full, rest):
    value = {"dispatch_method": "lottery", "limit_worker_concurrency": "7"}.get(full, "x")
    parsed = getattr(module.parser().parse_args([short, value, *rest]), full)
    assert parsed in (value, [value], 7)


@pytest.mark.parametrize(
    ("module", "flags"),
    [
        (controller, "host port dispatch-method ssl"),
        (
            openai_api_server,
            (
                "host port controller-address allow-credentials allowed-origins allowed-methods"
                " allowed-headers api-keys ssl"
            ),
        ),
        (
            model_worker,
            (
                "host port worker-address controller-address model-names conv-template"
                " limit-worker-concurrency stream-interval no-register seed embed-in-truncate debug"
                " ssl model-path revision device gpus num-gpus max-gpu-memory dtype load-8bit"
                " cpu-offloading gptq-ckpt gptq-wbits gptq-groupsize gptq-act-order awq-ckpt"
                " awq-wbits awq-groupsize enable-exllama exllama-max-seq-len exllama-gpu-split"
                " exllama-cache-8bit enable-xft xft-max-seq-len xft-dtype"
            ),
        ),
        (
            cli,
            (
                "model-path conv-template conv-system-msg temperature repetition_penalty"
                " max-new-tokens no-history style multiline mouse judge-sent-end debug"
            ),
        ),
        (huggingface_api, "temperature repetition_penalty max-new-tokens debug message"),
        (
            multi_model_worker,
            (
                "host port worker-address controller-address model-path model-names conv-template"
                " limit-worker-concurrency stream-interval no-register ssl num-gpus"
            ),
        ),
        (huggingface_api_worker, "model-info-file limit-worker-concurrency no-register seed ssl"),
        (
            test_throughput,
            "controller-address worker-address model-name max-new-tokens n-thread test-dispatch",
        ),
        (
            launch_all_serve,
            (
                "model-path-address controller-host controller-port dispatch-method worker-host"
                " worker-port model-path revision device gpus num-gpus max-gpu-memory load-8bit"
                " cpu-offloading gptq-ckpt gptq-wbits gptq-groupsize gptq-act-order model-names"
                " limit-worker-concurrency stream-interval no-register server-host server-port"
                " allow-credentials api-keys"
            ),
        ),
        (shutdown_serve, "down"),
        (register_worker, "controller-address worker-name check-heart-beat multimodal"),
        (
            test_message,
            "controller-address worker-address model-name temperature max-new-tokens message",
        ),
    ],
)
def test_every_flag_of_fastchat_is_known(module, flags):
    assert {f"--{flag}" for flag in flags.split()} <= options(module)


def test_the_defaults_are_fastchats():
    worker = model_worker.parser().parse_args(MODEL)
    assert (worker.host, worker.port, worker.num_gpus) == ("localhost", 21002, 1)
    assert (worker.limit_worker_concurrency, worker.stream_interval) == (None, 2)
    assert worker.controller_address == "http://localhost:21001"
    assert controller.parser().parse_args([]).port == 21001
    assert controller.parser().parse_args([]).dispatch_method == "shortest_queue"
    server = openai_api_server.parser().parse_args([])
    assert (server.port, server.allowed_origins) == (8000, ["*"])
    assert test_message.parser().parse_args(["--model-name", "m"]).max_new_tokens == 32


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], False), (["--debug"], True), (["--debug", "True"], True), (["--debug", "FALSE"], False)],
)
def test_debug_takes_a_value_or_none(given, expected):
    assert model_worker.parser().parse_args([*MODEL, *given]).debug is expected


@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        (model_worker, [], "--model-path"),
        (model_worker, [*MODEL, "--debug", "maybe"], "'maybe'"),
        (model_worker, [*MODEL, "--stream-interval", "0"], "at least 1"),
        (model_worker, [*MODEL, "--dtype", "int8"], "bfloat16"),
        (openai_api_server, ["--allowed-origins", "*"], "JSON list"),
        (openai_api_server, ["--api-keys", "@/nowhere"], "/nowhere"),
        (controller, ["--dispatch-method", "best"], "lottery"),
        (cli, [*MODEL, "--temperature", "hot"], "'hot'"),
        (cli, [*MODEL, "--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_value_is_refused_by_name(module, given, said, capsys):
    with pytest.raises(SystemExit) as caught:
        module.parser().parse_args(given)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["--gptq-wbits", "4"],
        ["--gptq-ckpt", "x"],
        ["--awq-wbits", "8"],
        ["--enable-exllama"],
        ["--enable-xft"],
        ["--gptq-act-order"],
    ],
)
def test_what_does_not_serve_yuan2_is_refused_with_an_alternative(given):
    args = model_worker.parser().parse_args([*MODEL, *given])
    with pytest.raises(SettingsError, match="--load-8bit") as caught:
        check_model_args(args)
    assert given[0] in str(caught.value)
    assert caught.value.exit_status == 2


def test_old_defaults_are_accepted_and_what_has_no_effect_is_warned_of(capsys):
    given = ["--gptq-wbits", "16", "--awq-groupsize", "-1", "--exllama-max-seq-len", "4096"]
    check_model_args(model_worker.parser().parse_args([*MODEL, *given, "--cpu-offloading"]))
    assert "--cpu-offloading" in capsys.readouterr().err


def test_gpus_are_made_visible_and_must_suffice(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XPU_VISIBLE_DEVICES", "")
    parse = model_worker.parser().parse_args
    check_model_args(parse([*MODEL, "--gpus", "1,2", "--num-gpus", "2"]))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == os.environ["XPU_VISIBLE_DEVICES"] == "1,2"
    with pytest.raises(SettingsError, match="--num-gpus"):
        check_model_args(parse([*MODEL, "--gpus", "1", "--num-gpus", "2"]))


def test_a_model_is_named_after_its_folder_unless_told():
    assert model_names("/models/Yuan2-2B/", None) == ["Yuan2-2B"]
    assert model_names("IEITYuan/Yuan2-2B-hf", []) == ["Yuan2-2B-hf"]
    assert model_names("x", ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "address", "warned"),
    [
        ([], "http://localhost:9", False),
        (["--host", "0.0.0.0"], "http://localhost:9", True),
        (["--host", "10.0.0.1", "--ssl"], "https://10.0.0.1:9", False),
        (["--host", "::1"], "http://[::1]:9", False),
        (["--host", "0.0.0.0", "--worker-address", "http://w:1"], "http://w:1", False),
        (["--worker-address", "http://0.0.0.0:1"], "http://0.0.0.0:1", True),
    ],
)
def test_the_workers_address_follows_host_and_port(given, address, warned, caplog):
    args = model_worker.parser().parse_args([*MODEL, *given])
    assert model_worker.worker_settings(args, 9).worker_address == address
    worker_entry.warn_of_address(logging.getLogger("t"), args)
    assert bool(caplog.records) is warned


def test_no_register_means_no_controller():
    parse = model_worker.parser().parse_args
    assert model_worker.worker_settings(parse(MODEL), 1).controller_address
    settings = model_worker.worker_settings(parse([*MODEL, "--no-register"]), 1)
    assert settings.controller_address is None


@pytest.mark.parametrize(
    ("text", "keys"),
    [("a, b,", ["a", "b"]), ("", None), ('["a,1", "b"]', ["a,1", "b"]), ("a\nb\n", ["a", "b"])],
)
def test_api_keys_are_a_list_in_several_forms(text, keys, tmp_path):
    assert _secrets(text) == keys
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")
    assert _secrets(f"@{file}") == keys


def _secrets(text):
    found = read_api_keys(text)
    return found and [each.key for each in found]


def test_the_environment_sets_defaults(monkeypatch):
    monkeypatch.setenv("API_KEYS", "old")
    monkeypatch.setenv("CONTROLLER_ADDRESS", "http://c:1")
    assert AppSettings().api_keys == [ApiKey("old")]
    monkeypatch.setenv("FASTCHAT_API_KEYS", "new")
    assert (AppSettings().api_keys, AppSettings().controller_address) == (
        [ApiKey("new")],
        "http://c:1",
    )


def test_credentials_for_every_origin_are_refused():
    with pytest.raises(SettingsError, match="--allow-credentials"):
        CorsSettings(["*"], ["*"], ["*"], allow_credentials=True)
    CorsSettings(["https://a"], ["*"], ["*"], allow_credentials=True)
