"""What every test may rely on: one thread, no hub, the golden data, the published tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports torch, transformers or fastchat. Tests run two at a time on two cores,
# where more threads than one each only get in each other's way; no test may reach for a hub; and
# servers under test write no log files into the checkout.
for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LOGDIR": "",
    "NO_PROXY": "127.0.0.1,localhost",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

TOKENIZER_VARIABLE = "YUAN2_TOKENIZER"
REQUIRE_TOKENIZER_VARIABLE = "FASTCHAT_REQUIRE_TOKENIZER"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The recorded outputs of the published implementation: model, tokenizer, chat template."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def yuan2_tokenizer_path() -> Path:
    """The folder of the published tokenizer, which is too large to lie in the repository."""
    named = os.environ.get(TOKENIZER_VARIABLE)
    if not named:
        pytest.skip(f"${TOKENIZER_VARIABLE} does not name a folder with the published tokenizer")
    path = Path(named)
    assert (path / "tokenizer.model").is_file(), (
        f"${TOKENIZER_VARIABLE}={named}: no tokenizer.model"
    )
    return path


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where the published tokenizer is required, a test skipped for want of it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get(REQUIRE_TOKENIZER_VARIABLE) or reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    missed = [report.nodeid for report in skipped if TOKENIZER_VARIABLE in str(report.longrepr)]
    if missed:
        reporter.write_line(
            f"{len(missed)} tests were skipped for want of ${TOKENIZER_VARIABLE}, although "
            f"${REQUIRE_TOKENIZER_VARIABLE} says that they must run; the first is {missed[0]}",
            red=True,
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
