"""The docs name only what exists, and the checker that says so notices when they do not."""

from __future__ import annotations

import re

import pytest


def test_everything_the_docs_name_exists(check_docs, root):
    assert check_docs.faults(root) == []


@pytest.fixture
def project(tmp_path):
    """A small project with one page per test."""
    (tmp_path / "fastchat" / "serve").mkdir(parents=True)
    (tmp_path / "fastchat" / "__init__.py").touch()
    (tmp_path / "fastchat" / "__main__.py").write_text('COMMANDS = {"chat": "fastchat.serve.cli"}')
    (tmp_path / "fastchat" / "serve" / "__init__.py").touch()
    (tmp_path / "fastchat" / "serve" / "cli.py").write_text(
        'parser.add_argument("--model-path")\nLOGS = os.environ["FASTCHAT_LOGS"]\n'
    )
    (tmp_path / "scripts").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "serve.md").write_text("# Serve\n\n## The `cli`, at last\n")
    for name in ("pyproject.toml", "Dockerfile"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "[serve](docs/serve.md)",
        "[serve](docs/serve.md#the-cli-at-last)",
        "[elsewhere](https://example.org/nothing-to-check)",
        "`fastchat.serve.cli`",
        "`fastchat.serve.cli.LOGS` and `fastchat/serve/cli.py`",
        "```\npython -m fastchat.serve.cli --model-path PATH\n```",
        "`--model_path` in its other spelling, `--model` shortened",
        "`FASTCHAT_LOGS`",
        "`fastchat chat`",
        "a --dash in prose is no flag, nor is `a-- b`",
    ],
)
def test_what_exists_is_no_fault(check_docs, project, text):
    (project / "README.md").write_text(text)
    assert check_docs.faults(project) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[serve](docs/server.md)", "no such file"),
        ("[serve](docs/serve.md#the-api)", "no such heading"),
        ("`fastchat.serve.gateway`", "no such module or name"),
        ("`fastchat.serve.cli.missing`", "no such module or name"),
        ("```\npython fastchat/train/train_mem.py\n```", "no such file"),
        ("`--modle-path`", "no program takes this flag"),
        ("```\nfastchat chart --model-path PATH\n```", "no such command"),
        ("`FASTCHAT_LOG_FOLDER`", "nothing reads this variable"),
    ],
)
def test_what_does_not_exist_is_a_fault(check_docs, project, text, fault):
    (project / "README.md").write_text(text)
    (found,) = check_docs.faults(project)
    assert found.startswith("README.md: ")
    assert found.endswith(fault)


def test_the_readmes_scripts_are_files(root):
    readme = (root / "README.md").read_text("utf-8")
    named = set(re.findall(r"scripts/[\w.]+", readme))
    assert {"scripts/demo.sh", "scripts/test.sh"} <= named
    assert all((root / name).is_file() for name in named)
