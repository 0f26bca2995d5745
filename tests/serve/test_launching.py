"""Services that are left running, and found and stopped again by their record."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from fastchat.errors import FastChatError, SettingsError
from fastchat.serve import launch_all_serve, shutdown_serve
from fastchat.serve.launching import Records, beginning_of
from fastchat.serve.processes import free_ports
from tests.serve.harness import get
from tests.serve.test_processes import controller


def parsed(*flags):
    return launch_all_serve.services(launch_all_serve.parser().parse_args(flags))


def test_a_service_runs_until_it_is_shut_down(tmp_path, capsys):
    (port,) = free_ports(1)
    records = Records(tmp_path)
    service = controller(port)
    record = records.launch(service)
    records.wait_until_ready(service, record, 60)
    assert Records(tmp_path).running() == [record]
    with pytest.raises(FastChatError, match=str(record.pid)):
        records.launch(service)
    assert get(service.ready_url).status_code == 200
    shutdown_serve.main(["--down", "openai_api_server", "--log-dir", str(tmp_path)])
    assert records.running() == [record]
    shutdown_serve.main(["--down", "controller", "--log-dir", str(tmp_path)])
    assert records.running() == []
    told = capsys.readouterr().out
    assert "Nothing was running." in told
    assert str(record.pid) in told


def test_a_process_that_has_only_the_same_id_is_left_alone(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as other:
        records = Records(tmp_path)
        entry = {"name": "a", "module": "m", "pid": other.pid, "began": beginning_of(other.pid) - 1}
        (tmp_path / "services.json").write_text(json.dumps([entry]))
        assert records.running() == []
        shutdown_serve.main(["--log-dir", str(tmp_path)])
        assert other.poll() is None
        other.communicate(b"\n")
    assert beginning_of(other.pid) is None


def test_a_service_that_ends_is_told_with_its_last_words(tmp_path):
    (port,) = free_ports(1)
    records = Records(tmp_path)
    service = controller(port)
    wrong = replace(service, flags=["--host", "no.such.host.invalid"])
    record = records.launch(wrong)
    with pytest.raises(FastChatError, match=r"(?s)ended.*no\.such\.host"):
        records.wait_until_ready(wrong, record, 60)


def test_flags_go_to_the_processes_that_they_are_for():
    control, one, two, api = parsed(
        *("--model-path-address", "/m@localhost@20002", "/n@0.0.0.0@20003@2,3"),
        *("--device", "cuda", "--gpus", "1", "--dtype", "bfloat16", "--load-8bit"),
        *("--controller-port", "8503", "--server-port", "8505", "--api-keys", "secret"),
    )
    assert control.flags[2:4] == ["--port", "8503"]
    assert one.flags[:2] == ["--model-path", "/m"]
    assert "http://localhost:20002" in one.flags
    assert one.flags[-2:] == ["--gpus", "1"]
    assert two.flags[-2:] == ["--gpus", "2,3"]
    assert {"--load-8bit", "bfloat16"} <= set(two.flags)
    assert "http://localhost:8503" in two.flags
    assert api.environment == {"FASTCHAT_API_KEYS": "secret"}
    assert "secret" not in api.flags
    assert [each.name for each in (one, two)] == ["model_worker_20002", "model_worker_20003"]


@pytest.mark.parametrize("address", ["/m", "/m@h", "/m@h@x", "/m@h@1@2@3", "@h@1"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(SettingsError, match="PATH@HOST@PORT"):
        parsed("--model-path-address", address)
    with pytest.raises(SettingsError, match="No model"):
        parsed()


def test_the_script_says_how_it_is_used():
    done = subprocess.run(["scripts/serve.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "start|stop|restart|status" in done.stderr
