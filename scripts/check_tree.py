"""The shape of the tree: what may lie at the top, how long a file may be, what may be executed.

Looks at the files that git tracks or would track. Prints one line a fault and exits 1 if there is
any.

    python scripts/check_tree.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOP_LEVEL = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "docs",
    "fastchat",
    "playground",
    "pyproject.toml",
    "scripts",
    "tests",
}  # and dotfiles
MAX_LINES = 400
TEXT = {".md", ".py", ".sh", ".toml", ""}  # "": scripts without a suffix
NOT_OURS = {"LICENSE"}


def files(root: Path) -> list[Path]:
    """The files of the checkout at `root`, relative to it: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (root / name).is_file()]


def faults(root: Path) -> list[str]:
    """All faults of the tree at `root`, each as `file: what`."""
    found = []
    for file in files(root):
        top = file.parts[0]
        if top not in TOP_LEVEL and not top.startswith("."):
            found.append(f"{file}: {top} does not belong at the top level")
        if file.suffix in TEXT and file.name not in NOT_OURS:
            content = (root / file).read_text("utf-8")
            lines = content.count("\n")
            if lines > MAX_LINES:
                found.append(f"{file}: {lines} lines; split it, {MAX_LINES} is the most")
            if content.startswith("#!") and not os.access(root / file, os.X_OK):
                found.append(f"{file}: starts with #! but is not executable")
    return found


def main() -> int:
    """Check this checkout; the exit status."""
    found = faults(Path(__file__).resolve().parents[1])
    print(
        "\n".join(found) if found else "tree: every file is in its place and of a readable length"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
