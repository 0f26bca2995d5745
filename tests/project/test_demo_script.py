"""The README's first command, as a newcomer runs it: a fresh copy, nothing installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


@pytest.mark.full
@pytest.mark.timeout(900)
def test_demo_from_a_fresh_copy_to_an_answer(root, check_tree, tmp_path):
    """Installs from the package index, so it is one of the long tests; asserts nothing on speed."""
    copy = tmp_path / "copy"
    for file in check_tree.files(root):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, copy / file)
    environment = {name: value for name, value in os.environ.items() if name != "VENV"}
    result = subprocess.run(
        ["scripts/demo.sh"],
        cwd=copy,
        env=environment,
        input="你是谁\n\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (copy / ".venv" / "bin" / "fastchat").exists()
    assert "Chat with it" in result.stdout
    assert "The services have stopped" in result.stdout
