"""The tree keeps its shape, and the checker that says so notices when it does not."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def test_the_tree_is_in_shape(check_tree, root):
    assert check_tree.faults(root) == []


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("/build/\n")
    return tmp_path


def test_a_checkout_in_shape(check_tree, checkout):
    (checkout / "fastchat").mkdir()
    (checkout / "fastchat" / "long.json").write_text("\n" * 1000)
    (checkout / "fastchat" / "just.py").write_text("\n" * 400)
    (checkout / "build").mkdir()
    (checkout / "build" / "ignored.py").write_text("\n" * 401)
    assert check_tree.faults(checkout) == []


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("helper.py", "", "does not belong at the top level"),
        ("fastchat/long.py", "\n" * 401, "401 lines"),
        ("scripts/tool", "#!/bin/sh\n", "not executable"),
    ],
)
def test_a_checkout_out_of_shape(check_tree, checkout, name, content, fault):
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text(content)
    (found,) = check_tree.faults(checkout)
    assert found.startswith(f"{name}: ")
    assert fault in found


def _shell_scripts(root):
    return [
        path
        for path in [*(root / "scripts").iterdir(), root / ".ci" / "run"]
        if path.is_file() and (path.suffix == ".sh" or path.read_text("utf-8").startswith("#!"))
    ]


def test_shell_scripts_parse(root):
    for script in _shell_scripts(root):
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_scripts_are_clean(root):
    subprocess.run(["shellcheck", "-x", *_shell_scripts(root)], check=True, cwd=root)
