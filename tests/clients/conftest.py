"""Environments of their own for what others wrote: made once, and kept in pytest's cache."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def environment(pytestconfig):
    """Makes an environment from a file of requirements beside this one; gives its programs."""

    def make(name):
        requirements = HERE / name
        wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        folder = pytestconfig.cache.mkdir("environments") / wanted
        ready = folder / "ready"
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
            clean = {each: value for each, value in os.environ.items() if each != "PYTHONPATH"}
            subprocess.run([*pip, "-r", requirements], check=True, env=clean)
            ready.touch()
        return folder / "bin"

    return make
