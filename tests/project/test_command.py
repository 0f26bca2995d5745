"""The command `fastchat`: every name leads to a module that runs."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from fastchat.__main__ import COMMANDS, DATA_TOOLS, JUDGE_TOOLS, main


def test_every_command_is_a_module_that_can_be_run(root):
    modules = [module for module, _ in COMMANDS.values() if module]
    modules += [f"fastchat.data.{tool}" for tool in DATA_TOOLS]
    for module in modules:
        source = root.joinpath(*module.split(".")).with_suffix(".py").read_text("utf-8")
        assert '__name__ == "__main__"' in source, module


@pytest.mark.parametrize(
    ("room", "tools"), [("data", DATA_TOOLS), ("llm_judge", (*JUDGE_TOOLS, "evaluate"))]
)
def test_every_tool_has_its_name(root, room, tools):
    runnable = {
        path.stem
        for path in (root / "fastchat" / room).glob("*.py")
        if any(
            isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
            for node in ast.parse(path.read_text("utf-8")).body
        )
    }
    assert runnable == set(tools)


def test_the_judges_tools_run_by_their_names():
    run = subprocess.run(
        [sys.executable, "-m", "fastchat", "eval", "show-result", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--by-category" in run.stdout


def test_the_data_tools_are_listed_and_run(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["data"])
    told = capsys.readouterr().out
    assert all(tool in told for tool in DATA_TOOLS)
    with pytest.raises(SystemExit, match="2"):
        main(["data", "smaple"])
    assert "no data tool 'smaple'" in capsys.readouterr().err
    run = subprocess.run(
        [sys.executable, "-m", "fastchat", "data", "split-train-test", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--ratio" in run.stdout
