"""What users start parses its arguments before it loads anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ENTRY_POINTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in [
        ROOT / "fastchat" / "__main__.py",
        *(ROOT / "fastchat" / "serve").glob("*.py"),
        *(ROOT / "fastchat" / "llm_judge").glob("*.py"),
    ]
    if path.exists() and '__name__ == "__main__"' in path.read_text("utf-8")
)
# Runs an entry point with --help, then tells which heavy packages that has loaded.
PROBE = """
import json, runpy, sys
sys.argv = [sys.argv[1], "--help"]
status = 0
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code or 0
heavy = {"torch", "transformers", "peft", "gradio", "datasets"} & set(sys.modules)
print("\\n" + json.dumps({"status": status, "heavy": sorted(heavy)}))
"""


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_help_loads_nothing_heavy(module):
    result = subprocess.run(
        [sys.executable, "-c", PROBE, module], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert json.loads(result.stdout.splitlines()[-1]) == {"status": 0, "heavy": []}


LIGHT = [
    "conversation",
    "llm_judge.gen_judgment",
    "llm_judge.show_result",
    "protocol.openai_api_protocol",
    "serve.controller",
]


@pytest.mark.parametrize("module", [f"fastchat.{name}" for name in LIGHT])
def test_importing_loads_no_torch(module):
    probe = f"import {module}, sys; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=True)
