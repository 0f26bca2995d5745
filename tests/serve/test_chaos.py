"""The faults of `playground/benchmark/chaos.py`, on real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


@pytest.mark.parametrize("fault", ["controller", "drain", "kill", "leaving", "slow", "stopped"])
def test_no_request_hangs_or_breaks_off_without_a_word(fault):
    _run(fault)


def test_hostile_requests_are_answered_and_leave_nothing_behind():
    told = _run("fuzz", "--fuzz-requests", "2000")
    assert "500:" not in told


def _run(*arguments):
    done = subprocess.run(
        [sys.executable, "playground/benchmark/chaos.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
