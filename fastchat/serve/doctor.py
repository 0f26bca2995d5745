"""Looks at this machine and says what a server or a training would find.

    fastchat doctor
    fastchat doctor --json

Exits 1 if something has to be mended, and says how.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fastchat import __version__
from fastchat.entry import run_entry
from fastchat.utils import available_cores

State = Literal["ok", "note", "bad"]

_PORTS = {21001: "controller", 21002: "model worker", 8000: "API server", 7860: "web page"}
_PACKAGES = {
    "torch": "pip install torch==2.13.0",
    "transformers": "pip install -e .",
    "gradio": 'pip install -e ".[webui]"',
    "peft": 'pip install -e ".[model_worker]"',
    "deepspeed": 'pip install -e ".[train]"',
}
_NEEDED = ("torch", "transformers")
_GIB = 2**30
_LITTLE_MEMORY_GIB = 6.0  # the 2B model's weights in bfloat16, and room to work


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        fix: a line to type; "" where there is nothing to mend.
    """

    what: str
    state: State
    found: str
    fix: str = ""


def parser() -> argparse.ArgumentParser:
    """The doctor's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat doctor", description="Looks at this machine and says what to mend."
    )
    found.add_argument("--json", action="store_true", help="findings as JSON, one a line")
    return found


def examine() -> list[Finding]:
    """All findings."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _memory,
        _ports,
        _cache,
        _environment,
    )
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    version = platform.python_version()
    fits = sys.version_info >= (3, 11)
    fix = "" if fits else "Install Python 3.11 or newer and make a new environment."
    shown = f"{version} on {platform.system()} {platform.machine()}"
    return [
        Finding("fastchat-yuan2", "ok", __version__),
        Finding("python", "ok" if fits else "bad", shown, fix),
    ]


def _packages() -> list[Finding]:
    findings = []
    for name, fix in _PACKAGES.items():
        try:
            findings.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            state: State = "bad" if name in _NEEDED else "note"
            findings.append(Finding(name, state, "not installed", fix))
    return findings


def _devices() -> list[Finding]:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return [Finding("device", "bad", f"torch cannot be loaded: {error}", _PACKAGES["torch"])]
    if torch.cuda.is_available():
        return [
            Finding(
                f"cuda:{index}",
                "ok",
                f"{torch.cuda.get_device_name(index)},"
                f" {torch.cuda.mem_get_info(index)[0] / _GIB:.1f} GiB free",
            )
            for index in range(torch.cuda.device_count())
        ]
    if shutil.which("nvidia-smi"):
        fix = "Install a CUDA build of torch, then look again."
        return [Finding("device", "bad", "there is a GPU, and torch cannot use it", fix)]
    return [Finding("device", "ok", f"CPU with {available_cores()} cores")]


def _memory() -> list[Finding]:
    pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free = pages * size / _GIB
    state: State = "ok" if free >= _LITTLE_MEMORY_GIB else "note"
    fix = "" if state == "ok" else "The 2B model needs more: --load-8bit halves what it takes."
    disk = shutil.disk_usage(Path.cwd()).free / _GIB
    return [
        Finding("memory", state, f"{free:.1f} GiB free", fix),
        Finding("disk", "ok" if disk > 1 else "bad", f"{disk:.0f} GiB free here"),
    ]


def _ports() -> list[Finding]:
    findings = []
    for port, who in _PORTS.items():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                fix = f"It may be yours. If not, give the {who} another --port."
                findings.append(Finding(f"port {port}", "note", f"in use ({who})", fix))
            else:
                findings.append(Finding(f"port {port}", "ok", f"free ({who})"))
    return findings


def _cache() -> list[Finding]:
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        fix = "Name a folder that you may write to in HF_HOME."
        return [Finding("model cache", "bad", f"{cache} cannot be written", fix)]
    free = shutil.disk_usage(existing).free / _GIB
    return [Finding("model cache", "ok", f"{cache}, {free:.0f} GiB free")]


def _environment() -> list[Finding]:
    proxies = [name for name in ("http_proxy", "https_proxy", "all_proxy") if os.environ.get(name)]
    if not proxies:
        return []
    return [
        Finding(
            "proxy",
            "note",
            f"{', '.join(proxies)} is set; servers of one cluster talk past it",
            "Other clients need NO_PROXY=localhost,127.0.0.1.",
        )
    ]


def shown(findings: Sequence[Finding]) -> str:
    """Findings as lines of text."""
    marks = {"ok": "ok ", "note": "-- ", "bad": "NO "}
    width = max(len(finding.what) for finding in findings)
    return "\n".join(
        f"{marks[each.state]} {each.what:<{width}}  {each.found}"
        + (f"\n    {'':<{width}}  {each.fix}" if each.fix else "")
        for each in findings
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the findings; exits 1 if something has to be mended."""
    args = parser().parse_args(argv)
    findings = examine()
    if args.json:
        for finding in findings:
            print(json.dumps(asdict(finding)))
    else:
        print(shown(findings))
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    run_entry(main)
