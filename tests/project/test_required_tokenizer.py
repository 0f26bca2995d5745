"""A run that must test the published tokenizer fails if it could not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

TEST = """
def test_of_the_tokenizer(yuan2_tokenizer_path):
    assert yuan2_tokenizer_path.name == "tokenizer"

def test_of_something_else():
    pass
"""


@pytest.fixture
def run(root, tmp_path):
    """Runs the test above under this project's conftest; (exit status, output)."""
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(TEST)
    (tmp_path / "tokenizer").mkdir()
    ours = ("YUAN2_TOKENIZER", "FASTCHAT_REQUIRE_TOKENIZER")
    clean = {name: value for name, value in os.environ.items() if name not in ours}

    def run(*flags, **variables):
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *flags],
            cwd=tmp_path,
            env=clean | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout

    return run


def test_without_the_tokenizer_its_tests_are_skipped(run):
    status, output = run("-rs")
    assert status == 0
    assert "1 passed, 1 skipped" in output
    assert "$YUAN2_TOKENIZER does not name a folder" in output


@pytest.mark.parametrize("workers", ["0", "2"])
def test_where_it_is_required_the_run_fails(run, workers):
    status, output = run("-n", workers, FASTCHAT_REQUIRE_TOKENIZER="1")
    assert status == 1
    assert "1 tests were skipped for want of $YUAN2_TOKENIZER" in output


def test_a_folder_without_the_tokenizer_fails(run, tmp_path):
    status, output = run(YUAN2_TOKENIZER=str(tmp_path / "tokenizer"))
    assert status == 1
    assert "no tokenizer.model" in output


def test_with_the_tokenizer_its_tests_run(run, tmp_path):
    (tmp_path / "tokenizer" / "tokenizer.model").touch()
    status, output = run(
        YUAN2_TOKENIZER=str(tmp_path / "tokenizer"), FASTCHAT_REQUIRE_TOKENIZER="1"
    )
    assert status == 0
    assert "2 passed" in output
